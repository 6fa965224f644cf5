"""What a node counts, in Prometheus' terms.

One registry per node, so that two nodes in one process do not mix.

Names end in their unit; labels have few values: a transport, a close code. Never a channel or a user.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest


class Metrics:
    """Counters of one node. Gauges are read from the node when the page is asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.connections = Gauge(
            "tocsin_connections", "Open connections.", ["transport"], registry=self.registry
        )
        self.publications = Counter(
            "tocsin_publications", "Publications accepted by this node.", registry=self.registry
        )
        self.deliveries = Counter(
            "tocsin_deliveries",
            "Publications and other pushes written to subscribers.",
            registry=self.registry,
        )
        self.closes = Counter(
            "tocsin_closes", "Connections closed by this node.", ["code"], registry=self.registry
        )
        self.mended = Counter(
            "tocsin_mended_publications",
            "Publications whose announcement was missed, read from the log.",
            registry=self.registry,
        )
        self.engine_errors = Counter(
            "tocsin_engine_errors", "Calls the engine could not carry out.", registry=self.registry
        )

    def observe(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is read when it is asked for."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def page(self) -> bytes:
        """Everything, in the text format."""
        return generate_latest(self.registry)
