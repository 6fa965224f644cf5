"""Builds the deliveries of a node: the webhooks of its configuration, and what it shares with the engine."""

from __future__ import annotations

from tocsin_server.config.errors import ConfigError
from tocsin_server.config.tls_files import webhook_file_problems
from tocsin_server.hooks.deliveries import Deliveries
from tocsin_server.hooks.webhooks.webhook import Webhook
from tocsin_server.node.node import Node


def deliveries_of(node: Node) -> Deliveries:
    """Return the deliveries of a node, with its webhooks. The caller adds handlers, and runs them.

    Without recorded events there is nothing to deliver, and a webhook costs nothing. Raises ConfigError if a
    webhook's files for TLS cannot be used.
    """
    settings = node.settings
    if problems := webhook_file_problems(settings):
        raise ConfigError(*problems)
    parts = settings.events.parts
    webhooks = [Webhook(name, options, connections=parts) for name, options in settings.webhooks.items()]
    return Deliveries(
        node.engine.event_log,
        node.delivery_store,
        node.metrics,
        node.sampled_log,
        webhooks if settings.events.types else (),
        is_shared=not settings.engine.is_in_memory,
    )
