"""The rate limit, at its boundary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.core.rate_limit import NEVER_USED, RateLimit

START = 1000.0


@pytest.mark.parametrize("rate", [3, 10, 50, 100, 1000])
@pytest.mark.parametrize("burst", [5, 100, 1000, 5000])
@pytest.mark.parametrize("start", [START, 1e6, 1e8], ids=["minutes", "days", "years"])
def test_a_burst_is_allowed_and_one_more_is_not(rate: float, burst: int, start: float) -> None:
    """After a pause exactly `burst` requests pass at once, however long the machine has run."""
    limit, full_at = RateLimit(rate, burst), NEVER_USED
    for _ in range(burst):
        taken = limit.take(full_at, start)
        assert taken is not None
        full_at = taken
    assert limit.take(full_at, start) is None


def test_the_allowance_comes_back_at_the_rate() -> None:
    """One request passes after 1 / rate seconds, as `seconds_until` says, and not before."""
    limit = RateLimit(rate=10, burst=5)
    full_at = limit.take(NEVER_USED, START, amount=5)
    assert full_at is not None
    wait = limit.seconds_until(full_at, START)
    assert wait == pytest.approx(0.1)
    assert limit.take(full_at, START + wait - 0.01) is None
    assert limit.take(full_at, START + wait) is not None


def test_more_than_the_burst_never_passes() -> None:
    """An amount above the burst is refused at every time."""
    assert RateLimit(rate=10, burst=5).take(NEVER_USED, START, amount=6) is None


def test_a_rate_of_zero_is_no_limit() -> None:
    """Everything passes, and nothing is noted."""
    limit = RateLimit(rate=0, burst=0)
    assert limit.take(NEVER_USED, START, amount=1_000_000) == NEVER_USED
    assert limit.seconds_until(NEVER_USED, START) == 0


@given(
    st.floats(0.1, 1000),
    st.integers(1, 100),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 10)), max_size=50),
)
def test_in_any_span_at_most_the_burst_and_the_rate_pass(
    rate: float, burst: int, requests: list[tuple[float, int]]
) -> None:
    """What passed from any request on is at most the burst, and the rate times the time since."""
    limit, full_at, now = RateLimit(rate, burst), NEVER_USED, START
    passed: list[tuple[float, int]] = []
    for pause, amount in requests:
        now += pause
        taken = limit.take(full_at, now, amount)
        if taken is not None:
            full_at = taken
            passed.append((now, amount))
    for index, (since, _) in enumerate(passed):
        total = 0
        for at, amount in passed[index:]:
            total += amount
            assert total <= burst + rate * (at - since) + 2e-3
