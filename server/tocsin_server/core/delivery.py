"""How lifecycle events are delivered to one subscriber from one part of the event log: the pure rules.

    read a batch -> attempt -> delivered                          -> acknowledge, read the next batch
                            -> failed for now                     -> the same batch again, after a pause
                            -> refused, several events            -> at once again, event by event
                            -> refused alone, or too old, or gone -> dead letters, acknowledge

Events of one part never overtake each other, so an event that cannot be delivered holds up those behind it:
until `retry_for` after it happened, and for one more attempt after a pause of at most a second. The mutable
state of a `RetrySchedule` is the size of the next batch, and what is known of a batch that failed; only
`delivered`, `failed`, `forget` and `restore` change it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from msgspec import Struct

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
"""A receiver that works again is sent its events within this time. One request a minute is no load."""

LONGEST_RETRY_AFTER_SECONDS = 3600.0
"""The longest `Retry-After` that is respected: a receiver must not stop its own deliveries for days."""

PATIENCE = 3
"""After so many failed answers to one batch, its events are delivered one by one."""


class Result(Enum):
    """How an attempt to deliver a batch ended."""

    DELIVERED = "delivered"
    UNREACHABLE = "unreachable"
    """There was no answer, or one that asks to wait: the receiver says nothing about the events."""
    FAILED = "failed"
    """The receiver failed with these events, and may succeed later."""
    REFUSED = "refused"
    """The receiver will never accept one of these events."""
    GONE = "gone"
    """The receiver accepts no events any longer."""


class Outcome(NamedTuple):
    """The end of an attempt: its result, and what the operator is told about it."""

    result: Result
    error: str = ""
    """A clause, such as `status 500`."""
    status: int = 0
    """The HTTP status of the answer; 0 without one."""
    retry_after: float = 0.0
    """Seconds that the receiver asks to wait."""


class Batch(NamedTuple):
    """Events of one part that are delivered together."""

    delivery: str
    """The delivery id: the same for each attempt with the same events."""
    size: int
    """How many events of the log it covers, with those that the subscriber does not want."""
    times: Sequence[float]
    """The unix seconds at which the wanted events happened."""


class FailingDelivery(Struct, frozen=True, omit_defaults=True):
    """What is known of a batch whose delivery failed. Another node continues with it."""

    delivery: str
    """The delivery id."""
    size: int
    """How many events of the log the batch covers."""
    attempts: int
    failing_since: float
    """The unix second of the first failed attempt."""
    next_attempt_at: float
    """The unix second of the next one."""
    oldest_event_at: float
    """The unix second at which the batch's first event happened."""
    status: int = 0
    error: str = ""


class Retry(NamedTuple):
    """Read the batch again after `pause` seconds, and attempt its delivery."""

    pause: float


class GiveUp(NamedTuple):
    """Move the first `number` wanted events of the batch to the dead letters, and acknowledge them."""

    number: int
    reason: str
    attempts: int
    status: int


class RetrySchedule:
    """Decides about one subscriber's batches from one part.

    `batch_size` is the largest number of events in a batch. Events are delivered again until `retry_for`
    seconds after they happened, and attempted at least once.
    """

    def __init__(self, batch_size: int, retry_for: float) -> None:
        self._batch_size = batch_size
        self._retry_for = retry_for
        self._limit = batch_size
        self._failing: FailingDelivery | None = None

    @property
    def limit(self) -> int:
        """How many events the next batch may have. A batch that failed is attempted unchanged."""
        return self._failing.size if self._failing is not None else self._limit

    @property
    def failing(self) -> FailingDelivery | None:
        """What is known of the batch, if its last attempt failed."""
        return self._failing

    def restore(self, failing: FailingDelivery, now: float) -> float:
        """Continue with a batch that failed at another node. Return the seconds until its next attempt."""
        self._failing = failing
        return min(LONGEST_PAUSE_SECONDS, max(0.0, failing.next_attempt_at - now))

    def delivered(self) -> None:
        """The batch was delivered. A limit that was reduced doubles with each delivery."""
        self._failing = None
        self._limit = min(self._batch_size, self._limit * 2)

    def forget(self) -> None:
        """The batch that failed is no longer in the log, or was delivered."""
        self._failing = None

    def failed(self, batch: Batch, outcome: Outcome, now: float, random: float) -> Retry | GiveUp:
        """Decide what follows a failed attempt. `random` is in [0, 1)."""
        times = batch.times
        known = self._failing if self._failing and self._failing.delivery == batch.delivery else None
        attempts = 1 + (known.attempts if known else 0)
        if outcome.result is Result.GONE:
            return self._give_up(len(times), attempts, outcome)
        if outcome.result is Result.REFUSED:
            return self._give_up(1, attempts, outcome) if len(times) == 1 else self._one_by_one()
        expired = _count_expired(times, now - self._retry_for)
        is_answer = outcome.result is Result.FAILED
        if len(times) > 1 and is_answer and (attempts >= PATIENCE or expired):
            return self._one_by_one()
        if expired:
            return self._give_up(expired, attempts, outcome)
        pause = max(pause_after(attempts, random), min(outcome.retry_after, LONGEST_RETRY_AFTER_SECONDS))
        until_expiry = times[0] + self._retry_for - now
        pause = min(pause, max(until_expiry, pause_after(1, random)))
        self._failing = FailingDelivery(
            batch.delivery,
            size=batch.size,
            attempts=attempts,
            failing_since=known.failing_since if known else now,
            next_attempt_at=now + pause,
            oldest_event_at=times[0],
            status=outcome.status,
            error=outcome.error,
        )
        return Retry(pause)

    def _one_by_one(self) -> Retry:
        self._failing, self._limit = None, 1
        return Retry(0.0)

    def _give_up(self, number: int, attempts: int, outcome: Outcome) -> GiveUp:
        self._failing = None
        return GiveUp(number, outcome.error, attempts, outcome.status)


def pause_after(attempts: int, random: float) -> float:
    """Return the seconds to wait after so many failed attempts: doubled each time, the upper half random."""
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 16))
    return longest * (0.5 + random / 2)


def _count_expired(times: Sequence[float], before: float) -> int:
    """How many of the first events happened at `before` or earlier."""
    for number, time in enumerate(times):
        if time > before:
            return number
    return len(times)
