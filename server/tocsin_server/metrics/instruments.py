"""Instruments: plain numbers that are counted, and shown when the page is asked for.

The loop's thread alone counts, so they need no lock, as those of prometheus_client take one; a duration finds
its bucket by bisection, not by a walk; and none brings along a second metric that says when it was made.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets: from what a few writes take to what anybody would call broken."""


class Tally(Collector):
    """A number that only grows: whoever counts adds to `count`."""

    def __init__(self, name: str, help_text: str, registry: CollectorRegistry) -> None:
        self.count = 0
        self._name = name
        self._help = help_text
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The number as of now."""
        yield CounterMetricFamily(self._name, self._help, value=self.count)


class Tallies(Collector):
    """Numbers that only grow, by the values of labels."""

    def __init__(self, name: str, help_text: str, registry: CollectorRegistry, *labels: str) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self._name = name
        self._help = help_text
        self._labels = labels
        registry.register(self)

    def add(self, *values: str) -> None:
        """Count one with these values of the labels."""
        self.counts[values] += 1

    def collect(self) -> Iterator[Metric]:
        """Those that were counted, as of now."""
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for values, count in self.counts.items():
            family.add_metric(values, count)
        yield family


class Durations:
    """How many durations, in seconds, fell into which bucket."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one. A negative one, which only clocks can bring about, counts as none at all."""
        seconds = max(0.0, seconds)
        self._counts[bisect_left(SECONDS, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str]) -> None:
        """Show them."""
        bounds = (*map(str, SECONDS), "+Inf")
        family.add_metric(
            labels, list(zip(bounds, map(float, accumulate(self._counts)), strict=True)), self._sum
        )


class Histogram(Collector):
    """Durations, apart by the values of a label if there is one."""

    def __init__(self, name: str, help_text: str, registry: CollectorRegistry, label: str = "") -> None:
        self._name = name
        self._help = help_text
        self._label = label
        self._durations: dict[str, Durations] = {} if label else {"": Durations()}
        registry.register(self)

    def of(self, value: str = "") -> Durations:
        """Those with this value of the label, or all."""
        found = self._durations.get(value)
        if found is None:
            found = self._durations[value] = Durations()
        return found

    def collect(self) -> Iterator[Metric]:
        """All of them, as of now."""
        labels = [self._label] if self._label else []
        family = HistogramMetricFamily(self._name, self._help, labels=labels)
        for value, durations in self._durations.items():
            durations.add_to(family, [value] if labels else [])
        yield family
