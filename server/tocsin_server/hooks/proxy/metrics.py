"""What is counted of the calls of back ends. The gauges are added once the proxies exist."""

from __future__ import annotations

from tocsin_server.metrics.instruments import LabeledCounter
from tocsin_server.metrics.registry import Metrics


class ProxyMetrics:
    """The counters of all proxies of a node."""

    def __init__(self, metrics: Metrics) -> None:
        self.calls = LabeledCounter(
            "tocsin_proxy_calls",
            "Calls of back ends by proxies, by what became of them.",
            metrics.registry,
            "proxy",
            "kind",
            "outcome",
        )
        self.retries = LabeledCounter(
            "tocsin_proxy_retries",
            "Calls of back ends that were made again, because they had no answer.",
            metrics.registry,
            "proxy",
            "kind",
        )
