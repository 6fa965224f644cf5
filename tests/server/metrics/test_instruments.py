"""Instruments: what counters and histograms show on the metrics page."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.server.metrics.metrics_page import read
from tocsin_server.metrics.instruments import SECONDS, Counter, Histogram, LabeledCounter


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def page(registry: CollectorRegistry) -> dict[str, float]:
    return read(generate_latest(registry))


def test_a_counter_shows_its_number(registry: CollectorRegistry) -> None:
    """It is there before anything is counted, and no sample tells when it was created."""
    counter = Counter("things", "Things.", registry)
    assert page(registry) == {"things_total": 0}
    counter.count += 2
    assert page(registry) == {"things_total": 2}


def test_a_labeled_counter_shows_the_combinations_that_were_counted(registry: CollectorRegistry) -> None:
    """The values are in the order of the labels."""
    counter = LabeledCounter("things", "Things.", registry, "color", "size")
    assert page(registry) == {}
    counter.add("red", "small")
    counter.add("red", "small")
    counter.add("blue", "large")
    assert page(registry) == {
        "things_total{color=red,size=small}": 2,
        "things_total{color=blue,size=large}": 1,
    }


@pytest.mark.parametrize(("seconds", "bound"), [(0.0, 0.0001), (0.0001, 0.0001), (0.3, 0.5), (-1.0, 0.0001)])
def test_a_duration_falls_into_the_first_bucket_that_is_large_enough(
    registry: CollectorRegistry, seconds: float, bound: float
) -> None:
    """A negative duration counts as 0. Prometheus' buckets are cumulative."""
    Histogram("wait_seconds", "Waits.", registry).of().observe(seconds)
    samples = page(registry)
    for each in SECONDS:
        assert samples[f"wait_seconds_bucket{{le={each}}}"] == (each >= bound)
    assert samples["wait_seconds_sum"] == max(0.0, seconds)


def test_a_duration_above_all_buckets_is_counted(registry: CollectorRegistry) -> None:
    Histogram("wait_seconds", "Waits.", registry).of().observe(100)
    samples = page(registry)
    assert samples[f"wait_seconds_bucket{{le={SECONDS[-1]}}}"] == 0
    assert samples["wait_seconds_bucket{le=+Inf}"] == samples["wait_seconds_count"] == 1


def test_a_histogram_with_a_label_has_buckets_for_each_value(registry: CollectorRegistry) -> None:
    """Without durations it has none."""
    histogram = Histogram("wait_seconds", "Waits.", registry, "call")
    assert page(registry) == {}
    histogram.of("publish").observe(1)
    histogram.of("survey").observe(2)
    samples = page(registry)
    assert samples["wait_seconds_sum{call=publish}"] == 1
    assert samples["wait_seconds_sum{call=survey}"] == 2
