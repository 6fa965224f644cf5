"""Instruments: counters, gauges and histograms as plain numbers, collected when the page is requested.

They replace those of prometheus_client, because only the event loop's thread counts. So they need no lock, a
duration finds its bucket by bisection, and no instrument adds a second metric with its time of creation.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets: from the time of a few writes to a delay that every user notices."""


class Counter(Collector):
    """A number that only grows. Callers add to `count`."""

    def __init__(self, name: str, help_text: str, registry: CollectorRegistry) -> None:
        self.count = 0
        self._name = name
        self._help = help_text
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The metric with the current number."""
        yield CounterMetricFamily(self._name, self._help, value=self.count)


class LabeledCounter(Collector):
    """Numbers that only grow, one for each combination of label values."""

    def __init__(self, name: str, help_text: str, registry: CollectorRegistry, *labels: str) -> None:
        self.counts: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._name = name
        self._help = help_text
        self._labels = labels
        registry.register(self)

    def add(self, *values: str) -> None:
        """Count one for these label values, given in the order of the labels."""
        self.counts[values] += 1

    def collect(self) -> Iterator[Metric]:
        """The metric with every combination that was counted."""
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for values, count in self.counts.items():
            family.add_metric(values, count)
        yield family


class LabeledGauge(Collector):
    """Numbers that rise and fall, one for each value of a label. Callers change `counts`."""

    def __init__(self, name: str, help_text: str, registry: CollectorRegistry, label: str) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self._name = name
        self._help = help_text
        self._label = label
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The metric with every value that was counted."""
        family = GaugeMetricFamily(self._name, self._help, labels=[self._label])
        for value, count in self.counts.items():
            family.add_metric([value], count)
        yield family


class Durations:
    """How many durations, in seconds, fell into each bucket."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Record one duration. Negative values, which clock adjustments cause, are recorded as 0."""
        if seconds < 0:
            seconds = 0.0
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Add the durations to a metric, under these label values."""
        bounds = (*map(str, SECONDS), "+Inf")
        family.add_metric(
            labels, list(zip(bounds, map(float, accumulate(self._counts)), strict=True)), self._sum
        )


class Histogram(Collector):
    """A histogram of durations, with one set of buckets for each value of its label, if it has a label."""

    def __init__(self, name: str, help_text: str, registry: CollectorRegistry, label: str = "") -> None:
        self._name = name
        self._help = help_text
        self._label = label
        self._durations: dict[str, Durations] = {} if label else {"": Durations()}
        registry.register(self)

    def of(self, value: str = "") -> Durations:
        """The durations under this label value, or those of a histogram without a label."""
        found = self._durations.get(value)
        if found is None:
            found = self._durations[value] = Durations()
        return found

    def collect(self) -> Iterator[Metric]:
        """The metric with all durations so far."""
        labels = [self._label] if self._label else []
        family = HistogramMetricFamily(self._name, self._help, labels=labels)
        for value, durations in self._durations.items():
            durations.add_to(family, [value] if labels else [])
        yield family
