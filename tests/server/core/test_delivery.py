"""The rules of deliveries: when a batch is attempted again, and what becomes a dead letter."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tocsin_server.core.delivery import (
    LONGEST_PAUSE_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    PATIENCE,
    Batch,
    GiveUp,
    Outcome,
    Result,
    Retry,
    RetrySchedule,
    pause_after,
)

START = 1_700_000_000.0
DAY = 86_400.0
DOWN = Outcome(Result.UNREACHABLE, "connection refused")
BROKEN = Outcome(Result.FAILED, "status 500", 500)
REFUSED = Outcome(Result.REFUSED, "status 422", 422)
GONE = Outcome(Result.GONE, "status 410", 410)


def schedule() -> RetrySchedule:
    return RetrySchedule(batch_size=100, retry_for=DAY)


def batch(size: int, time: float = START, delivery: str = "a") -> Batch:
    return Batch(delivery, size, [time] * size)


def test_pauses_double_up_to_a_minute() -> None:
    """With the greatest jitter; the least is half of that."""
    pauses = [pause_after(attempts, 1.0) for attempts in range(1, 10)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pause_after(3, 0.0) == 2.0


def test_ten_minutes_without_a_receiver_cost_few_attempts_and_no_event() -> None:
    """The batch is attempted about 16 times, unchanged, and then delivered."""
    rules, now, attempts = schedule(), START, 0
    while now < START + 600:
        decision = rules.failed(batch(100), DOWN, now, 0.5)
        assert isinstance(decision, Retry)
        assert rules.limit == 100
        attempts += 1
        now += decision.pause
    assert attempts < 20
    rules.delivered()
    assert rules.failing is None


def test_events_become_dead_letters_once_they_are_too_old() -> None:
    """Only those of the batch that are; the others are read again."""
    rules = schedule()
    mixed = Batch("a", 3, [START - DAY, START - DAY, START])
    assert rules.failed(mixed, DOWN, START, 0.5) == GiveUp(2, DOWN.error, 1, 0)
    assert rules.failing is None


def test_an_event_that_is_too_old_is_attempted_once() -> None:
    """After a long failure of the receiver or of all nodes, the first attempt may deliver it."""
    rules = schedule()
    assert rules.limit == 100
    assert rules.failed(batch(1, START - 9 * DAY), DOWN, START, 0.5) == GiveUp(1, DOWN.error, 1, 0)


def test_a_refused_event_is_found_by_delivering_its_batch_event_by_event() -> None:
    """The refused batch becomes no dead letter. Only the event that is refused alone does."""
    rules = schedule()
    assert rules.failed(batch(100), REFUSED, START, 0.5) == Retry(0.0)
    assert rules.limit == 1
    rules.delivered()
    assert rules.limit == 2
    rules.failed(batch(2), REFUSED, START, 0.5)
    assert rules.failed(batch(1), REFUSED, START, 0.5) == GiveUp(1, REFUSED.error, 1, 422)


def test_a_batch_that_fails_again_and_again_is_delivered_event_by_event() -> None:
    """So an event for which the receiver has a fault does not hold up those before it."""
    rules = schedule()
    decisions = [rules.failed(batch(100), BROKEN, START, 0.5) for _ in range(PATIENCE)]
    assert decisions[-1] == Retry(0.0)
    assert rules.limit == 1


def test_a_receiver_that_is_gone_gets_no_second_attempt() -> None:
    assert schedule().failed(batch(7), GONE, START, 0.5) == GiveUp(7, GONE.error, 1, 410)


def test_retry_after_lengthens_the_pause_and_is_bounded() -> None:
    asked = Outcome(Result.UNREACHABLE, "status 503", 503, retry_after=90)
    assert schedule().failed(batch(1), asked, START, 0.5) == Retry(90)
    assert schedule().failed(batch(1), asked._replace(retry_after=1e9), START, 0.5) == Retry(
        LONGEST_RETRY_AFTER_SECONDS
    )


@pytest.mark.parametrize("outcome", [DOWN, DOWN._replace(retry_after=3600.0)])
def test_an_event_is_given_up_when_retry_for_has_passed(outcome: Outcome) -> None:
    """Neither long pauses nor `Retry-After` hold up the events behind it for longer."""
    rules, now = RetrySchedule(batch_size=100, retry_for=100.0), START
    while isinstance(decision := rules.failed(batch(1), outcome, now, 0.99), Retry):
        now += decision.pause
    assert now - START == pytest.approx(100.0)


def test_events_that_expire_one_after_the_other_cause_few_attempts() -> None:
    """A pause has its least length, also if the next event expires sooner."""
    rules = RetrySchedule(batch_size=100, retry_for=100.0)
    assert rules.failed(batch(1, START - 99.99), DOWN, START, 0.5) == Retry(pause_after(1, 0.5))


def test_another_node_continues_with_the_same_batch() -> None:
    """With its size, its attempts and the time of the next one; a clock that differs does not stop it."""
    first = schedule()
    for _ in range(5):
        first.failed(batch(40), DOWN, START, 0.5)
    state = first.failing
    assert state is not None
    second = schedule()
    assert second.restore(state, START) == pytest.approx(state.next_attempt_at - START)
    assert second.restore(state, START - DAY) == LONGEST_PAUSE_SECONDS
    assert second.limit == 40
    second.failed(batch(40), DOWN, START + 30, 0.5)
    assert second.failing is not None
    assert second.failing.attempts == 6
    assert second.failing.failing_since == START


def test_a_batch_that_became_another_one_begins_with_its_first_attempt() -> None:
    """Retention may have removed the events that failed."""
    rules = schedule()
    rules.failed(batch(2, delivery="a"), DOWN, START, 0.5)
    rules.failed(batch(2, delivery="b"), DOWN, START, 0.5)
    assert rules.failing is not None
    assert rules.failing.attempts == 1


@given(
    poison=st.sets(st.integers(0, 59), max_size=6),
    results=st.lists(st.sampled_from([DOWN, BROKEN, None]), max_size=40),
    verdict=st.sampled_from([REFUSED, BROKEN]),
    random=st.floats(0, 1, exclude_max=True),
)
def test_every_event_is_delivered_or_a_dead_letter_and_in_order(
    poison: set[int], results: list[Outcome | None], verdict: Outcome, random: float
) -> None:
    """A receiver that is sometimes away, and never accepts some events. No other event becomes a dead letter.

    An event that fails while others are delivered is given up after `retry_for`, so the run ends.
    """
    rules, now, position = RetrySchedule(batch_size=16, retry_for=DAY), START, 0
    delivered: list[int] = []
    dead: list[int] = []
    outcomes, attempts = iter(results), 0
    while position < 60:
        attempts += 1
        assert attempts < 20_000
        read = list(range(position, min(60, position + rules.limit)))
        one = Batch(f"{read[0]}-{read[-1]}", len(read), [START] * len(read))
        outcome = next(outcomes, None)
        if outcome is None and not poison.isdisjoint(read):
            outcome = verdict
        if outcome is None:
            rules.delivered()
            delivered += read
            position += len(read)
            continue
        decision = rules.failed(one, outcome, now, random)
        if isinstance(decision, GiveUp):
            dead += read[: decision.number]
            position += decision.number
        else:
            now += decision.pause
    assert sorted(delivered + dead) == list(range(60))
    assert delivered == sorted(delivered)
    assert set(dead) >= poison
    if now < START + DAY:
        assert set(dead) == poison
