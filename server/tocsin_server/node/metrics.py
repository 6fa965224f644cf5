"""Gauges that are read from a node at scrape time, and counters of how recoveries end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tocsin_server import errors
from tocsin_server.core.node_state import IoRequest, NodeState, Write
from tocsin_server.engine.engine import Engine
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.connection import Connection
from tocsin_server.node.lifecycle import LifecycleWriter
from tocsin_server.protocol.messages import Reply, SubscribeResult
from tocsin_server.version import __version__


def count_recoveries(metrics: Metrics, transport: str, requests: Sequence[IoRequest]) -> None:
    """Count how recoveries ended, from the replies that follow once subscriptions are set up."""
    for request in requests:
        if isinstance(request, Write):
            for message in request.messages:
                if isinstance(message, Reply):
                    _count_recovery(metrics, transport, message)


def _count_recovery(metrics: Metrics, transport: str, reply: Reply) -> None:
    if reply.error is not None and reply.error.code == errors.UNRECOVERABLE_POSITION.code:
        metrics.recoveries.add(transport, "refused")
    for result in _results(reply):
        if result.was_recovering:
            metrics.recoveries.add(transport, "recovered" if result.recovered else "not_recovered")
            metrics.recovered_publications.count += len(result.publications)


def _results(reply: Reply) -> Iterable[SubscribeResult]:
    if reply.connect is not None:
        return reply.connect.subs.values()
    return () if reply.subscribe is None else (reply.subscribe,)


def add_gauges(
    metrics: Metrics,
    name: str,
    state: NodeState[Connection],
    engine: Engine,
    is_draining: Callable[[], bool],
) -> None:
    """Add the metrics that are read from a node and its engine when the page is requested."""
    metrics.add_node_info(name=name, version=__version__)
    hub, channels, connections = state.hub, state.hub.channels, state.connections
    metrics.add_gauge("tocsin_users", "Users with a connection to this node.", lambda: len(list(hub.users)))
    metrics.add_gauge("tocsin_channels", "Channels with subscribers on this node.", lambda: len(channels))
    metrics.add_gauge(
        "tocsin_subscriptions",
        "Subscriptions of this node's connections.",
        lambda: sum(map(len, channels.values())),
    )
    metrics.add_labeled_gauge(
        "tocsin_queued_bytes",
        "Bytes queued: for clients, in channels before fan-out, while subscribing, for the engine.",
        "queue",
        {
            "clients": lambda: sum(connection.queued_bytes for connection in connections),
            "channels": lambda: sum(channel.queued_bytes for channel in channels.values()),
            "subscribing": lambda: sum(channel.held_bytes for channel in channels.values()),
            "engine": lambda: engine.health.waiting_bytes,
        },
    )
    metrics.add_gauge("tocsin_draining", "1 while this node drains, else 0.", is_draining)
    _add_engine_gauges(metrics, engine)


def add_lifecycle_gauges(metrics: Metrics, writer: LifecycleWriter | None) -> None:
    """Add the metrics of lifecycle events. Without a writer, they are 0."""
    metrics.add_gauge(
        "tocsin_lifecycle_waiting",
        "Lifecycle events of this node that are not written yet.",
        lambda: writer.waiting_count if writer else 0,
    )
    metrics.add_gauge(
        "tocsin_lifecycle_failing_seconds",
        "Seconds since lifecycle events of this node cannot be written; 0 if they can.",
        lambda: writer.failing_seconds if writer else 0,
    )
    metrics.add_counter(
        "tocsin_lifecycle_dropped",
        "Lifecycle events that this node dropped, in pairs of which nothing was written.",
        lambda: writer.dropped_count if writer else 0,
    )
    metrics.add_gauge(
        "tocsin_lifecycle_stored",
        "Lifecycle events in the event log of all nodes.",
        lambda: writer.figures.stored if writer else 0,
    )
    metrics.add_gauge(
        "tocsin_lifecycle_oldest_seconds",
        "Seconds since the oldest lifecycle event in the event log was written.",
        lambda: writer.figures.oldest_seconds if writer else 0,
    )
    metrics.add_counter(
        "tocsin_lifecycle_trimmed",
        "Lifecycle events that were removed before every subscriber had acknowledged them, of all nodes.",
        lambda: writer.figures.trimmed if writer else 0,
    )


def _add_engine_gauges(metrics: Metrics, engine: Engine) -> None:
    metrics.add_gauge(
        "tocsin_engine_ready",
        "1 if this node can publish and receive, else 0.",
        lambda: not engine.unready_reason,
    )
    metrics.add_gauge(
        "tocsin_deaf",
        "1 if a pub/sub connection of this node is dead or not proven yet, else 0.",
        lambda: engine.health.is_deaf,
    )
    metrics.add_gauge(
        "tocsin_probe_age_seconds",
        "Seconds since this node last received its own probe.",
        lambda: engine.health.silence_seconds,
    )
    metrics.add_gauge(
        "tocsin_probe_lag_seconds",
        "Seconds that this node's last probe was in flight.",
        lambda: engine.lag_seconds,
    )
    metrics.add_counter(
        "tocsin_pubsub_connections",
        "Pub/sub connections that were established, the first included.",
        lambda: engine.health.links,
    )
    metrics.add_counter(
        "tocsin_reaped_nodes",
        "Nodes whose lease expired, and whose presence entries this node removed.",
        lambda: engine.health.reaped_nodes,
    )
    metrics.add_counter(
        "tocsin_restored_presence",
        "Times that Redis had lost a channel's presence entries, and this node wrote its own again.",
        lambda: engine.health.restored_channels,
    )
    metrics.add_counter(
        "tocsin_forged_messages",
        "Messages between nodes that no node had signed, or that were repeated.",
        lambda: engine.health.forged_messages,
    )
    metrics.add_gauge(
        "tocsin_engine_warnings",
        "Settings or states of Redis that endanger a promise now.",
        lambda: len(engine.health.warnings),
    )
