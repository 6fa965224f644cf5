"""The circuit breaker: when it opens, and what it lets through while it is not closed."""

from __future__ import annotations

from tocsin_server.hooks.proxy.breaker import Breaker, BreakerState

PAUSE = 5.0


def opened_at(now: float, faults: int = 3) -> Breaker:
    breaker = Breaker(faults, PAUSE)
    opening = [breaker.failed(f"client {number}", "no answer", now) for number in range(faults)]
    assert opening == [False] * (faults - 1) + [True]
    return breaker


def test_it_opens_after_faults_in_a_row() -> None:
    breaker = opened_at(100.0)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.begin("a", 100.0 + PAUSE - 0.01)
    assert breaker.last_fault == "no answer"


def test_an_answer_in_between_ends_the_row() -> None:
    breaker = Breaker(2, PAUSE)
    for now in range(10):
        assert not breaker.failed(f"client {now}", "no answer", float(now))
        assert not breaker.answered()
    assert breaker.begin("a", 10.0)


def test_the_faults_of_one_client_count_once() -> None:
    """A client whose requests the back end cannot answer must not refuse the requests of the others."""
    breaker = Breaker(2, PAUSE)
    assert not any(breaker.failed("a", "no answer", float(now)) for now in range(100))
    assert breaker.failed("b", "no answer", 100.0)


def test_after_the_pause_one_call_is_let_through() -> None:
    breaker = opened_at(100.0)
    assert breaker.begin("a", 100.0 + PAUSE)
    assert not breaker.begin("b", 100.0 + PAUSE)
    assert breaker.is_open
    assert breaker.answered()
    assert breaker.state is BreakerState.CLOSED
    assert breaker.begin("b", 100.0 + PAUSE)


def test_a_fault_of_that_call_opens_it_for_another_pause() -> None:
    breaker = opened_at(100.0)
    assert breaker.begin("a", 106.0)
    assert not breaker.failed("a", "refused", 107.0)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.begin("b", 107.0 + PAUSE - 0.01)
    assert breaker.begin("b", 107.0 + PAUSE)


def test_late_faults_of_other_calls_do_not_prolong_the_pause() -> None:
    breaker = opened_at(100.0)
    breaker.failed("late", "no answer", 104.0)
    assert breaker.begin("a", 105.0)
    breaker.failed("late", "no answer", 105.5)
    assert not breaker.begin("b", 105.5)
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_late_answer_closes_it() -> None:
    """The back end can answer, wherever the call came from."""
    breaker = opened_at(100.0)
    assert breaker.answered()
    assert breaker.begin("a", 100.0)


def test_a_call_whose_client_has_left_makes_room_for_the_next() -> None:
    breaker = opened_at(100.0)
    assert breaker.begin("a", 106.0)
    breaker.abandoned("b")
    assert not breaker.begin("c", 106.0)
    breaker.abandoned("a")
    assert breaker.begin("c", 106.0)


def test_without_a_number_of_faults_it_never_opens() -> None:
    breaker = Breaker(0, PAUSE)
    assert not any(breaker.failed(str(number), "no answer", 1.0) for number in range(1000))
    assert breaker.begin("a", 1.0)
    assert not breaker._clients
