r"""When the node itself asks whether a connection or a subscription goes on, before it expires.

    due -> asked -> answered: due again before the new expiry, or never
             \--no answer, or a temporary refusal--> due again

No command of the client waits for it. The mutable state is what is due and what was asked, by channel; "" is
the connection itself. Only the methods of `Renewals` change it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tocsin_server.core.events import Timestamp

LEAD_SECONDS = 10.0
"""How long before the expiry the question is asked; half of the time that is left, if that is shorter."""

RETRY_SECONDS = 5.0
"""How long after an answer, or after its time limit, it is asked again at the earliest."""


class Question(NamedTuple):
    """What was asked: about the connection, if `channel` is "", or about a subscription."""

    channel: str
    asked_at: float
    """Unix seconds. The answer cannot know of anything later."""


class Renewals:
    """The expiries of one connection that the node renews. Numbers of its questions are negative."""

    __slots__ = ("_asked", "_count", "_due")

    def __init__(self) -> None:
        self._count = 0
        self._due: dict[str, float] = {}
        self._asked: dict[int, Question] = {}

    def __contains__(self, channel: str) -> bool:
        """Whether the node renews the subscription to a channel; "" is the connection."""
        return channel in self._due

    @property
    def next_due_at(self) -> float | None:
        """The monotonic second at which the first question is due."""
        return min(self._due.values(), default=None)

    def schedule(self, channel: str, expires_at: float | None, monotonic: float) -> None:
        """Ask before monotonic second `expires_at`; None: it never expires, so that nothing is asked."""
        self.cancel(channel)
        if expires_at is not None:
            left = max(0.0, expires_at - monotonic)
            self._due[channel] = expires_at - min(LEAD_SECONDS, left / 2)

    def schedule_again(self, channel: str, expires_at: float | None, monotonic: float) -> None:
        """Ask before the expiry that an answer named, but not at once: it may have changed nothing."""
        self.schedule(channel, expires_at, monotonic)
        if channel in self._due:
            self._due[channel] = max(self._due[channel], monotonic + RETRY_SECONDS)

    def retry(self, channel: str, monotonic: float) -> None:
        """Ask again after a temporary refusal."""
        if channel in self._due:
            self._due[channel] = monotonic + RETRY_SECONDS

    def cancel(self, channel: str) -> None:
        """Ask no longer, and ignore an answer that is still to come."""
        self._due.pop(channel, None)
        self._asked = {number: asked for number, asked in self._asked.items() if asked.channel != channel}

    def take_due(self, now: Timestamp, answer_seconds: float) -> Iterator[tuple[int, str]]:
        """Yield a number and a channel for each question that must be asked now.

        Without an answer after `answer_seconds` it is asked again, and the late answer is ignored.
        """
        for channel in [channel for channel, due_at in self._due.items() if now.monotonic >= due_at]:
            self.cancel(channel)
            self._count -= 1
            self._asked[self._count] = Question(channel, now.unix)
            self._due[channel] = now.monotonic + answer_seconds + RETRY_SECONDS
            yield self._count, channel

    def take(self, number: int) -> Question | None:
        """Return a question; None if it was asked again, or is of no interest."""
        return self._asked.pop(number, None)
