"""Durations in classes."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_load.histogram import Histogram, format_duration

durations = st.lists(st.floats(min_value=1e-6, max_value=100), min_size=1, max_size=200)


@given(durations, st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_within_a_class(seconds: list[float], share: float) -> None:
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    exact = sorted(seconds)[math.ceil(share * len(seconds) - 1e-9) - 1]
    assert exact / 1.001 <= histogram.quantile(share) <= exact * 1.05
    assert histogram.longest == max(seconds)


@given(durations, st.integers(min_value=1, max_value=25))
def test_bars_hold_everything_once(seconds: list[float], most: int) -> None:
    histogram = Histogram()
    for one in seconds:
        histogram.add(one)
    bars = histogram.bars(most)
    assert len(bars) <= most
    assert sum(times for _, _, times in bars) == len(seconds)


@given(durations, durations)
def test_merging_is_counting_both(some: list[float], others: list[float]) -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for seconds in some:
        one.add(seconds)
        both.add(seconds)
    for seconds in others:
        other.add(seconds)
        both.add(seconds)
    one.merge(other)
    assert one == both


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (0.5, "500 ms"), (0.00234, "2.34 ms"), (7e-6, "7.00 µs")]
)
def test_durations_are_written_with_three_digits(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
