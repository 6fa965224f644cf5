"""The times of a subscription: expiry on the two clocks, and the `ttl` in replies."""

from __future__ import annotations

import pytest

from tests.server.core.playbook import START
from tocsin_server.core.subscription import monotonic_deadline, ttl_seconds


@pytest.mark.parametrize(("seconds", "ttl"), [(60.9, 60), (1.0, 1), (0.5, 1), (-5.0, 1), (1e300, 2**32 - 1)])
def test_a_ttl_is_in_whole_seconds_and_at_least_one(seconds: float, ttl: int) -> None:
    """0 means no expiry, so an expiry in the past is 1. The field has 32 bits."""
    assert ttl_seconds(START.monotonic + seconds, START) == ttl


def test_a_ttl_without_an_expiry_is_0() -> None:
    assert ttl_seconds(None, START) == 0


@pytest.mark.parametrize("never", [None, 0])
def test_an_expiry_of_0_is_never(never: float | None) -> None:
    assert monotonic_deadline(never, START) is None


def test_a_unix_expiry_becomes_a_second_of_the_monotonic_clock() -> None:
    assert monotonic_deadline(START.unix + 60, START) == START.monotonic + 60
