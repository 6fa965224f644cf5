"""The metrics of a node (docs/metrics.md lists all of them).

Each node has a registry of its own, so that the metrics of two nodes in one process stay apart.

Names end in their unit. Labels have few values: a transport, a disconnect code, a call. A channel or a user
is never a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from tocsin_server import errors
from tocsin_server.metrics.instruments import Counter, Histogram, LabeledCounter, LabeledGauge

OTHER = "other"
"""The label of every code that is not in errors.py: the API accepts any code."""

_CODES = {str(why.code) for why in vars(errors).values() if isinstance(why, errors.Disconnect)}


class Metrics:
    """The metrics that one node counts, and the gauges that are read when the page is requested."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._add_connections()
        self._add_publications()
        self._add_recoveries()
        self.api_calls = LabeledCounter(
            "tocsin_api_calls",
            "Calls of the HTTP API, by the name of their key: each command of a batch is one.",
            self.registry,
            "key",
        )
        self.lifecycle_events = LabeledCounter(
            "tocsin_lifecycle_events", "Lifecycle events that this node wrote.", self.registry, "type"
        )
        self.engine_call_seconds = Histogram(
            "tocsin_engine_call_seconds", "Duration of calls to the engine.", self.registry, "call"
        )
        self.engine_errors = LabeledCounter(
            "tocsin_engine_errors", "Calls to the engine that failed.", self.registry, "call"
        )
        self.hook_calls = LabeledCounter(
            "tocsin_hook_calls",
            "Events that hooks were asked about.",
            self.registry,
            "kind",
            "hook",
            "outcome",
        )
        self.hooks_in_flight = Gauge(
            "tocsin_hooks_in_flight", "Events that hooks are asked about now.", registry=self.registry
        )
        self.hook_seconds = Histogram(
            "tocsin_hook_seconds", "Duration until a hook answered.", self.registry, "kind"
        )
        self._add_deliveries()
        self._add_sources()
        ProcessCollector(registry=self.registry)

    def _add_connections(self) -> None:
        self.connections = LabeledGauge("tocsin_connections", "Open connections.", self.registry, "transport")
        self._disconnects = LabeledCounter(
            "tocsin_disconnects", "Connections that this node closed.", self.registry, "code"
        )
        self.limits_reached = LabeledCounter(
            "tocsin_limits_reached",
            "Commands, requests and connections that a limit refused, by its key in the configuration.",
            self.registry,
            "limit",
        )
        self.key_set_fetches = LabeledCounter(
            "tocsin_key_set_fetches",
            "Fetches of the key sets of issuers.",
            self.registry,
            "issuer",
            "outcome",
        )
        self.received_bytes = Counter(
            "tocsin_received_bytes", "Bytes of messages received from clients.", self.registry
        )
        self.sent_bytes = Counter(
            "tocsin_sent_bytes", "Bytes of frames and events written to clients.", self.registry
        )

    def _add_publications(self) -> None:
        self.publications = Counter(
            "tocsin_publications", "Publications published through this node.", self.registry
        )
        self.deliveries = Counter(
            "tocsin_deliveries", "Pushes delivered: one for each message and subscriber.", self.registry
        )
        self.fanout_seconds = Histogram(
            "tocsin_fanout_seconds",
            "Duration of delivering a batch to all its subscribers, from the first write to the last.",
            self.registry,
        ).of()
        self.publish_to_socket_seconds = Histogram(
            "tocsin_publish_to_socket_seconds",
            "Age of a batch's oldest publication at the write to the last subscriber.",
            self.registry,
        ).of()

    def _add_recoveries(self) -> None:
        self.recoveries = LabeledCounter(
            "tocsin_recoveries",
            "Subscriptions that requested recovery.",
            self.registry,
            "transport",
            "outcome",
        )
        self.recovered_publications = Counter(
            "tocsin_recovered_publications", "Publications sent to clients as their recovery.", self.registry
        )
        self.backfilled_publications = Counter(
            "tocsin_backfilled_publications",
            "Publications that the pub/sub connection lost, and that this node read from history.",
            self.registry,
        )
        self._undelivered = LabeledCounter(
            "tocsin_undelivered_publications",
            "Publications that clients which were behind did not get, by slow_policy.",
            self.registry,
            "policy",
        )
        self.gaps = Counter(
            "tocsin_gaps",
            "Subscriptions whose clients were told of a gap while they were connected.",
            self.registry,
        )

    def _add_deliveries(self) -> None:
        self.delivered_events = LabeledCounter(
            "tocsin_delivered_events",
            "Lifecycle events that subscribers have taken.",
            self.registry,
            "subscriber",
        )
        self.delivery_attempts = LabeledCounter(
            "tocsin_delivery_attempts",
            "Attempts to deliver a batch of lifecycle events.",
            self.registry,
            "subscriber",
            "outcome",
        )
        self.dead_letters = LabeledCounter(
            "tocsin_dead_letters",
            "Lifecycle events that became dead letters.",
            self.registry,
            "subscriber",
        )
        self.dropped_dead_letters = LabeledCounter(
            "tocsin_dropped_dead_letters",
            "Dead letters that were dropped, because there were too many.",
            self.registry,
            "subscriber",
        )
        self.waiting_event_age = Gauge(
            "tocsin_waiting_event_age_seconds",
            "Age of the oldest lifecycle event whose delivery fails at this node; 0 if none does.",
            ["subscriber"],
            registry=self.registry,
        )

    def _add_sources(self) -> None:
        self.source_publications = LabeledCounter(
            "tocsin_source_publications", "Entries of a source that were published.", self.registry, "source"
        )
        self.source_failures = LabeledCounter(
            "tocsin_source_failures", "Entries of a source that cannot be published.", self.registry, "source"
        )
        self.source_reading = self._source_gauge(
            "tocsin_source_reading", "1 while this node is the one that reads the source, else 0."
        )
        self.source_waiting = self._source_gauge(
            "tocsin_source_waiting", "Entries of a source that are not published yet."
        )
        self.source_lag_seconds = self._source_gauge(
            "tocsin_source_lag_seconds", "Age of the oldest entry of a source that is not published yet."
        )

    def _source_gauge(self, name: str, help_text: str) -> Gauge:
        return Gauge(name, help_text, ["source"], registry=self.registry)

    def count_undelivered(self, policy: str, publications: int) -> None:
        """Count publications that a client did not get because it was behind."""
        if publications:
            self._undelivered.counts[policy,] += publications

    def count_disconnect(self, code: int) -> None:
        """Count a connection that this node closed."""
        label = str(code)
        self._disconnects.add(label if label in _CODES else OTHER)

    def add_gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        """Add a gauge whose value is read when the page is requested."""
        Gauge(name, help_text, registry=self.registry).set_function(read)

    def add_labeled_gauge(
        self, name: str, help_text: str, label: str, reads: dict[str, Callable[[], float]]
    ) -> None:
        """Add a gauge with one value for each label value, read when the page is requested."""
        gauge = Gauge(name, help_text, [label], registry=self.registry)
        for value, read in reads.items():
            gauge.labels(value).set_function(read)

    def add_counter(self, name: str, help_text: str, read: Callable[[], int]) -> None:
        """Add a counter whose number is kept elsewhere and read when the page is requested."""
        self.registry.register(_Read(lambda: CounterMetricFamily(name, help_text, value=read())))

    def add_node_info(self, **labels: str) -> None:
        """Add `tocsin_node_info`: constant facts, as the labels of a sample that is always 1."""
        self.registry.register(_Read(lambda: InfoMetricFamily("tocsin_node", "This node.", value=labels)))

    def page(self) -> bytes:
        """The metrics page, in Prometheus' text format."""
        return generate_latest(self.registry)


class _Read(Collector):
    """One metric that is made when the page is requested."""

    def __init__(self, read: Callable[[], Metric]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        yield self._read()
