"""The waits of a client between its attempts."""

from hypothesis import given
from hypothesis import strategies as st

from tocsin.backoff import FIRST_SECONDS, LONGEST_SECONDS, delay

attempts = st.integers(min_value=0, max_value=10_000)
randoms = st.floats(min_value=0, max_value=1, exclude_max=True)


@given(attempts, randoms)
def test_every_wait_is_between_the_first_and_the_longest(attempt: int, random: float) -> None:
    assert FIRST_SECONDS <= delay(attempt, random) <= LONGEST_SECONDS


@given(attempts, randoms)
def test_a_later_attempt_never_waits_less(attempt: int, random: float) -> None:
    assert delay(attempt, random) <= delay(attempt + 1, random)


def test_the_random_part_doubles_with_each_attempt() -> None:
    assert [delay(attempt, 0.5) - FIRST_SECONDS for attempt in range(4)] == [0.25, 0.5, 1.0, 2.0]
