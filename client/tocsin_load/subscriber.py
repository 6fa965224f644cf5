"""One connection that is subscribed to one channel. It reconnects and recovers from its position.

connecting → connected → subscribed; a failure leads to waiting → connecting, a refusal to ended

Unlike the client's session it corrects no fault of the server. A session drops a duplicate; here it is
counted. A session recovers a missing publication; here it stays missing.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any

from tocsin import backoff, errors
from tocsin.models import Position

from .counters import WorkerCounters
from .receipts import Receipts

OPEN_SECONDS = 10.0


class Subscriber:
    """The state that is common to WebSockets and event streams. At most one ``connect`` runs at a time.

    There are ``url_count`` addresses. ``url_index`` is that of the next attempt; each failure moves it on.
    ``deadline``: if nothing is received until then, the connection has failed.

    The mutable state is the attributes below. The connections change it, through the methods, and set
    ``deadline``.
    """

    def __init__(
        self,
        number: int,
        receipts: Receipts,
        counters: WorkerCounters,
        url_count: int,
        connect: Callable[[Subscriber], None],
    ) -> None:
        self.number = number
        self.receipts = receipts
        self.position: Position | None = None
        self.url_index = 0
        self.is_sse = False
        self.is_subscribed = False
        self.is_ended = False
        self.deadline: float | None = None
        self.transport: asyncio.Transport | None = None
        self._counters = counters
        self._url_count = url_count
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._failures = 0
        self._interruptions = 0
        self._subscribed_at = 0.0
        self._lost_at: float | None = None
        self._is_open = False

    def on_opening(self) -> None:
        """Begin an attempt to connect."""
        self._is_open = True

    def on_connected(self, transport: asyncio.Transport) -> None:
        """Handle an open transport. The server must answer until the deadline."""
        self.transport = transport
        self.deadline = self._loop.time() + OPEN_SECONDS

    def on_subscribed(self, position: Position | None, *, is_recovered: bool) -> None:
        """Go live at a position. ``is_recovered``: no publication is missing since the last position."""
        now = self._loop.time()
        if not self.receipts.has_begun:
            self.receipts.has_begun = True
            self._counters.count_settled(now)
            if self._counters.is_publishing:
                self._add_gap(position, is_start=True)
        elif not is_recovered:
            self._add_gap(position)
        if self._lost_at is not None:
            self._counters.reconnects.add(now - self._lost_at)
            self._lost_at = None
        if not is_recovered:
            self.position = position
        self._subscribed_at = now
        self._counters.subscribed += not self.is_subscribed
        self.is_subscribed = True

    def on_gap(self, position: Position) -> None:
        """Handle the server's report that the publications up to this position are lost."""
        self._add_gap(position)
        self.position = position

    def on_publication(self, data: Any, position: Position | None, now: float) -> None:
        """Record a publication. One of another run only moves the position."""
        if position is not None:
            self.position = position
        if isinstance(data, dict) and data.get("run") == self._counters.run:
            self.receipts.add(data["n"])
            self._counters.count_delivery(now - data["at"], now)
        else:
            self._counters.foreign += 1

    def on_unsubscribed(self) -> float:
        """Handle the end of the subscription. The connection goes on.

        Returns the seconds after which it may subscribe again: none, unless subscriptions do not last.
        """
        self._interruptions = 0 if self._is_steady() else self._interruptions
        pause = backoff.delay(self._interruptions, random.random()) if self._interruptions else 0.0  # noqa: S311 # jitter
        self._interruptions += 1
        self._end_subscription()
        return pause

    def on_lost(self, code: int, reason: str) -> None:
        """Handle the end of a connection, or a failed attempt, and schedule the next attempt.

        Further calls for the same connection are ignored.
        """
        if not self._is_open or self.is_ended:
            return
        self._is_open = False
        self.deadline = None
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
        if self.is_subscribed:
            self._counters.lost_connections += 1
            self._failures = 0 if self._is_steady() else self._failures
            self._end_subscription()
        self._counters.count_failure(f"{reason} (code {code})" if code else reason)
        if not errors.may_reconnect(code):
            self.end()
            return
        self.url_index = (self.url_index + 1) % self._url_count
        pause = backoff.delay(self._failures, random.random())  # noqa: S311 # jitter
        self._failures += 1
        self._loop.call_later(pause, self._reconnect)

    def end(self) -> None:
        """Make no further attempt."""
        self.is_ended = True
        if not self.receipts.has_begun:
            self._counters.count_settled(self._loop.time())

    def check_deadline(self, now: float) -> None:
        """Drop the connection if the deadline has passed."""
        if self.deadline is not None and self.deadline < now:
            self.on_lost(0, "the server was silent" if self.is_subscribed else "no response in time")

    def _is_steady(self) -> bool:
        return self.is_subscribed and self._loop.time() - self._subscribed_at >= backoff.STEADY_SECONDS

    def _end_subscription(self) -> None:
        self._counters.subscribed -= self.is_subscribed
        self.is_subscribed = False
        self._lost_at = self._lost_at or self._loop.time()

    def _reconnect(self) -> None:
        if not self.is_ended:
            self._connect(self)

    def _add_gap(self, position: Position | None, *, is_start: bool = False) -> None:
        epoch, offset = (position.epoch, position.offset) if position else ("", 0)
        self.receipts.add_gap(epoch, offset, is_start=is_start)


def describe(error: OSError) -> str:
    """Describe a failed attempt without the address, so that equal failures are counted together."""
    if isinstance(error, TimeoutError):
        return "cannot connect: no response in time"
    return f"cannot connect: {os.strerror(error.errno) if error.errno else error}"
