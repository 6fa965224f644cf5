"""What of a node is counted without its doing anything for it: how it stands, and how recoveries end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from tocsin_server import __version__, errors
from tocsin_server.core.events import Effect, Send
from tocsin_server.core.hub import Hub
from tocsin_server.engine.engine import Engine
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.connection import Connection
from tocsin_server.protocol.messages import Reply, SubscribeResult


def count_recoveries(metrics: Metrics, transport: str, effects: Sequence[Effect]) -> None:
    """Count how recoveries ended, from what a session asks for once its channels were entered."""
    for effect in effects:
        if isinstance(effect, Send) and isinstance(effect.message, Reply):
            reply = effect.message
            if reply.error is not None and reply.error.code == errors.UNRECOVERABLE_POSITION.code:
                metrics.recoveries.add(transport, "refused")
            for result in _results(reply):
                if result.was_recovering:
                    outcome = "recovered" if result.recovered else "not_recovered"
                    metrics.recoveries.add(transport, outcome)
                    metrics.recovered_publications.count += len(result.publications)


def _results(reply: Reply) -> Iterable[SubscribeResult]:
    if reply.connect is not None:
        return reply.connect.subs.values()
    return () if reply.subscribe is None else (reply.subscribe,)


def add_gauges(
    metrics: Metrics,
    name: str,
    hub: Hub[Any],
    peers: Collection[Connection],
    engine: Engine,
    is_draining: Callable[[], bool],
) -> None:
    """Add what is read from a node and from its engine when the page is asked for."""
    metrics.describe(name=name, version=__version__)
    channels = hub.channels
    metrics.observe("tocsin_users", "Different users with a connection here.", lambda: len(list(hub.users)))
    metrics.observe("tocsin_channels", "Channels with subscribers here.", lambda: len(channels))
    metrics.observe(
        "tocsin_subscriptions", "Subscriptions of connections here.", lambda: sum(map(len, channels.values()))
    )
    metrics.observe_each(
        "tocsin_queue_bytes",
        "What waits: for peers to be sent, in channels for their round, for newcomers, for the engine.",
        "place",
        {
            "peers": lambda: sum(peer.queued_bytes for peer in peers),
            "channels": lambda: sum(channel.queued_bytes for channel in channels.values()),
            "newcomers": lambda: sum(channel.held_bytes for channel in channels.values()),
            "engine": lambda: engine.health.waiting_bytes,
        },
    )
    metrics.observe("tocsin_draining", "1 if this node sends its clients elsewhere, else 0.", is_draining)
    _add_vitals(metrics, engine)


def _add_vitals(metrics: Metrics, engine: Engine) -> None:
    metrics.observe(
        "tocsin_engine_ready",
        "1 if this node can publish and hear, else 0.",
        lambda: not engine.unready_reason,
    )
    metrics.observe(
        "tocsin_deaf",
        "1 if a link over which this node hears is dead, else 0.",
        lambda: engine.health.is_deaf,
    )
    metrics.observe(
        "tocsin_canary_age_seconds",
        "How long ago this node last heard itself over its link.",
        lambda: engine.health.silence_seconds,
    )
    metrics.observe(
        "tocsin_canary_lag_seconds",
        "How long this node's last canary was under way.",
        lambda: engine.lag_seconds,
    )
    metrics.observe_count(
        "tocsin_links", "Links that became whole, the first included.", lambda: engine.health.links
    )
    metrics.observe_count(
        "tocsin_reaped_nodes",
        "Nodes that died, and after which this one has cleared away.",
        lambda: engine.health.reaped_nodes,
    )
