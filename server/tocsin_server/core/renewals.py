r"""When the node itself asks whether a connection or a subscription goes on, before it expires.

    due -> asked -> answered: due again before the new expiry, or never
             \--no answer, or a temporary refusal--> due again

No command of the client waits for it. The mutable state is what is due and what was asked, by channel; "" is
the connection itself. Only the methods of `Renewals` change it.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Raw

from tocsin_server import errors
from tocsin_server.core.events import Authorize, Authorized, Renewal, Timestamp
from tocsin_server.core.subscription import Subscription, monotonic_deadline
from tocsin_server.core.subscriptions import Subscriptions
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import ClientInfo, RefreshRequest, SubRefreshRequest

LEAD_SECONDS = 10.0
"""How long before the expiry the question is asked; half of the time that is left, if that is shorter."""

RETRY_SECONDS = 5.0
"""How long after an answer, or after its time limit, it is asked again at the earliest."""


class Question(NamedTuple):
    """What was asked: about the connection, if `channel` is "", or about a subscription."""

    channel: str
    asked_at: float
    """Unix seconds. The answer cannot know of anything later."""


class Expired(NamedTuple):
    """The application says that the connection ("") or the subscription to a channel has expired."""

    channel: str


class Renewed(NamedTuple):
    """The connection goes on, if `subscription` is None, or that subscription."""

    subscription: Subscription | None
    expires_at: float | None
    """The new expiry, in monotonic seconds; None for never."""
    info: Raw
    """The new info about the client; empty: it has not changed."""
    asked_at: float | None
    """When the application was asked, in unix seconds; None if it decided nothing."""


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

    def _schedule_again(self, channel: str, expires_at: float | None, monotonic: float) -> None:
        """Ask before the expiry that an answer named, but not at once: it may have changed nothing."""
        self.schedule(channel, expires_at, monotonic)
        if channel in self._due:
            self._due[channel] = max(self._due[channel], monotonic + RETRY_SECONDS)

    def cancel(self, channel: str) -> None:
        """Ask no longer, and ignore an answer that is still to come."""
        self._due.pop(channel, None)
        self._asked = {number: asked for number, asked in self._asked.items() if asked.channel != channel}

    def questions(
        self, info: ClientInfo, subscriptions: Subscriptions, answer_seconds: float, now: Timestamp
    ) -> list[Authorize]:
        """Return what must be asked now about a connection that is `info` and has `subscriptions`.

        Without an answer after `answer_seconds` it is asked again, and the late answer is ignored.
        """
        asked: list[Authorize] = []
        for channel in [channel for channel, due_at in self._due.items() if now.monotonic >= due_at]:
            self.cancel(channel)
            if channel and subscriptions.renewable(channel) is None:
                continue
            self._count -= 1
            self._asked[self._count] = Question(channel, now.unix)
            self._due[channel] = now.monotonic + answer_seconds + RETRY_SECONDS
            request = SubRefreshRequest(channel) if channel else RefreshRequest()
            asked.append(Authorize(self._count, request, info))
        return asked

    def answered(
        self, answer: Authorized, subscriptions: Subscriptions, now: Timestamp
    ) -> Renewed | Expired | Disconnect | None:
        """Return what follows from an answer; None: nothing, as if it was asked again meanwhile."""
        question, outcome = self._asked.pop(answer.id, None), answer.outcome
        if question is None:
            return None
        if isinstance(outcome, Disconnect):
            return outcome
        channel = question.channel
        if isinstance(outcome, Renewal) and 0 < outcome.expire_at <= now.unix:
            outcome = errors.EXPIRED
        if isinstance(outcome, Refusal) and outcome.temporary:
            if channel in self._due:
                self._due[channel] = now.monotonic + RETRY_SECONDS
            return None
        self.cancel(channel)
        subscription = subscriptions.renewable(channel) if channel else None
        if channel and subscription is None:
            return None
        if isinstance(outcome, Refusal):
            return Expired(channel)
        if not isinstance(outcome, Renewal):
            return None
        expires_at = monotonic_deadline(outcome.expire_at, now)
        self._schedule_again(channel, expires_at, now.monotonic)
        asked_at = question.asked_at if outcome.is_decided else None
        return Renewed(subscription, expires_at, outcome.info, asked_at)
