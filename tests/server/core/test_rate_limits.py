"""Rate limits of many keys: each key has its own allowance, and keys are forgotten."""

from __future__ import annotations

from tocsin_server.core.rate_limit import RateLimit
from tocsin_server.core.rate_limits import SWEEP_COUNT, RateLimits

START = 1000.0
LIMIT = RateLimit(rate=10, burst=2)


def test_each_key_has_an_allowance_of_its_own() -> None:
    """One key at its limit does not concern another."""
    limits = RateLimits()
    assert [limits.take("ada", LIMIT, START) for _ in range(3)] == [True, True, False]
    assert limits.take("bob", LIMIT, START)


def test_a_rate_of_0_is_no_limit_and_remembers_nothing() -> None:
    """Such a limit costs no memory."""
    limits = RateLimits()
    assert all(limits.take("ada", RateLimit(0, 1), START) for _ in range(100))
    assert len(limits) == 0


def test_keys_are_forgotten_once_their_allowance_is_back() -> None:
    """However many keys come and go, few are remembered."""
    limits = RateLimits()
    for number in range(20 * SWEEP_COUNT):
        assert limits.take(number, LIMIT, START + number * 0.01)
    assert len(limits) <= 2 * SWEEP_COUNT


def test_a_key_that_is_at_its_limit_is_not_forgotten() -> None:
    """A sweep keeps what has not come back yet."""
    limits = RateLimits()
    slow = RateLimit(rate=0.001, burst=1)
    assert limits.take("ada", slow, START)
    for number in range(5 * SWEEP_COUNT):
        limits.take(number, LIMIT, START + number * 0.01)
    assert not limits.take("ada", slow, START + 100)


def test_the_number_of_keys_is_bounded() -> None:
    """Past the bound the keys that were added first are forgotten."""
    limits = RateLimits(most_keys=2000)
    slow = RateLimit(rate=0.001, burst=1)
    for number in range(10_000):
        assert limits.take(number, slow, START)
    assert len(limits) <= 2000 + SWEEP_COUNT
    assert not limits.take(9_999, slow, START)
    assert limits.take(0, slow, START)


def test_what_is_given_back_may_be_taken_again() -> None:
    """But not more than was taken."""
    limits = RateLimits()
    slow = RateLimit(rate=0.001, burst=2)
    limits.give_back("ada", slow)
    assert [limits.take("ada", slow, START) for _ in range(3)] == [True, True, False]
    limits.give_back("ada", slow)
    assert [limits.take("ada", slow, START) for _ in range(2)] == [True, False]
    for _ in range(5):
        limits.give_back("ada", slow)
    assert [limits.take("ada", slow, START) for _ in range(3)] == [True, True, False]
