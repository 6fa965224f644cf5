"""What a node counts, in Prometheus' terms (docs/metrics.md).

One registry per node, so that two nodes in one process do not mix.

Names end in their unit; labels have few values: a transport, a close code, a call. Never a channel or a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from tocsin_server import errors
from tocsin_server.metrics.instruments import Histogram, Tallies, Tally

OTHER = "other"
"""Stands for every close code that is not in the table: an application may give any to the API."""

_CODES = {str(why.code) for why in vars(errors).values() if isinstance(why, errors.Disconnect)}


class Metrics:
    """What one node counts. Gauges are read from it when the page is asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._add_connections()
        self._add_publications()
        self._add_recoveries()
        self.engine_call_seconds = Histogram(
            "tocsin_engine_call_seconds", "What calls to the engine took.", self.registry, "call"
        )
        self.engine_errors = Tallies(
            "tocsin_engine_errors", "Calls that the engine could not carry out.", self.registry, "call"
        )
        ProcessCollector(registry=self.registry)

    def _add_connections(self) -> None:
        self.connections = Gauge(
            "tocsin_connections", "Open connections.", ["transport"], registry=self.registry
        )
        self._closes = Tallies("tocsin_closes", "Connections closed by this node.", self.registry, "code")
        self.received_bytes = Tally(
            "tocsin_received_bytes", "Bytes of messages that clients sent.", self.registry
        )
        self.sent_bytes = Tally(
            "tocsin_sent_bytes", "Bytes of messages and events written to clients.", self.registry
        )

    def _add_publications(self) -> None:
        self.publications = Tally("tocsin_publications", "Publications accepted by this node.", self.registry)
        self.deliveries = Tally(
            "tocsin_deliveries", "Publications and other pushes written to subscribers.", self.registry
        )
        self.round_seconds = Histogram(
            "tocsin_round_seconds",
            "What rounds took: one channel's batch, from its first write to its last.",
            self.registry,
        ).of()
        self.publish_to_socket_seconds = Histogram(
            "tocsin_publish_to_socket_seconds",
            "Age of a round's oldest publication when the round's last peer was written to.",
            self.registry,
        ).of()

    def _add_recoveries(self) -> None:
        self.recoveries = Tallies(
            "tocsin_recoveries",
            "Subscriptions that asked for what they had missed.",
            self.registry,
            "transport",
            "outcome",
        )
        self.recovered_publications = Tally(
            "tocsin_recovered_publications",
            "Publications that returning subscribers were given.",
            self.registry,
        )
        self.mended = Tally(
            "tocsin_mended_publications",
            "Publications whose announcement was missed, read from the log.",
            self.registry,
        )
        self.broken_streams = Tally(
            "tocsin_broken_streams",
            "Subscriptions told of a hole that the log could not mend.",
            self.registry,
        )

    def count_close(self, code: int) -> None:
        """A connection was closed by this node."""
        label = str(code)
        self._closes.add(label if label in _CODES else OTHER)

    def observe(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is read when it is asked for."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def observe_each(
        self, name: str, help_text: str, label: str, reads: dict[str, Callable[[], float]]
    ) -> None:
        """Add a gauge with one value for each of a label's."""
        gauge = Gauge(name, help_text, [label], registry=self.registry)
        for value, read in reads.items():
            gauge.labels(value).set_function(read)

    def observe_count(self, name: str, help_text: str, read: Callable[[], int]) -> None:
        """Add a number that only grows, which somebody else counts."""
        self.registry.register(_Read(lambda: CounterMetricFamily(name, help_text, value=read())))

    def describe(self, **facts: str) -> None:
        """Add what does not change, as labels of a sample that is always 1."""
        self.registry.register(_Read(lambda: InfoMetricFamily("tocsin_node", "This node.", value=facts)))

    def page(self) -> bytes:
        """Everything, in the text format."""
        return generate_latest(self.registry)


class _Read(Collector):
    """One family, made when it is asked for."""

    def __init__(self, read: Callable[[], Metric]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield self._read()
