"""One connection to one channel: it subscribes, hears, loses its link and resumes from its position.

dialling → greeting → subscribed, and back to waiting → dialling whenever that breaks, until refused for good

Unlike the client's session it mends nothing that the server owes it: a duplicate is counted where a session
drops it, and a publication that is missing stays missing where a session would reconnect and ask for it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any

from tocsin import backoff, errors
from tocsin.values import Position

from .meter import Meter
from .record import Record

OPEN_SECONDS = 10.0


class Listener:
    """The part that WebSocket and event stream share. ``dial`` is called at most once at a time.

    There are ``homes`` addresses; a connection that broke is made anew at the one after its ``home``.
    """

    def __init__(
        self,
        number: int,
        record: Record,
        meter: Meter,
        homes: int,
        dial: Callable[[Listener], None],
    ) -> None:
        self.number = number
        self.record = record
        self.position: Position | None = None
        self.home = 0
        self.is_sse = False
        self.is_subscribed = False
        self.is_over = False
        self.due: float | None = None  # silence until then is a failure
        self.transport: asyncio.Transport | None = None
        self._meter = meter
        self._homes = homes
        self._dial = dial
        self._loop = asyncio.get_running_loop()
        self._attempt = 0
        self._left_at: float | None = None
        self._is_up = False

    def opening(self) -> None:
        """An attempt begins."""
        self._is_up = True

    def connected(self, transport: asyncio.Transport) -> None:
        """It may speak; the answer is due."""
        self.transport = transport
        self.due = self._loop.time() + OPEN_SECONDS

    def subscribed(self, position: Position | None, *, is_whole: bool) -> None:
        """It is live from this position on; ``is_whole``: nothing is missing since the last one."""
        now = self._loop.time()
        if not self.record.has_begun:
            self.record.has_begun = True
            self._meter.settle(now)
            if self._meter.has_begun:
                self._miss(position, is_start=True)
        elif not is_whole:
            self._miss(position)
        if self._left_at is not None:
            self._meter.returns.add(now - self._left_at)
            self._left_at = None
        if not is_whole:
            self.position = position
        self._attempt = 0
        self._meter.subscribed += not self.is_subscribed
        self.is_subscribed = True

    def gap(self, position: Position) -> None:
        """It is told that nothing up to this position will come."""
        self._miss(position)
        self.position = position

    def hear(self, data: Any, position: Position | None, now: float) -> None:
        """Take in a publication; what another run published only moves the position."""
        if position is not None:
            self.position = position
        if isinstance(data, dict) and data.get("run") == self._meter.run:
            self.record.hear(data["n"])
            self._meter.deliver(now - data["at"], now)
        else:
            self._meter.foreign += 1

    def unsubscribed(self) -> None:
        """It is not live, but its connection stands."""
        self._meter.subscribed -= self.is_subscribed
        self.is_subscribed = False
        self._left_at = self._left_at or self._loop.time()

    def lost(self, code: int, reason: str) -> None:
        """The connection is over, or never came about; called twice for one, the second does not count."""
        if not self._is_up or self.is_over:
            return
        self._is_up = False
        self.due = None
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
        if self.is_subscribed:
            self._meter.lost_connections += 1
            self.unsubscribed()
        self._meter.fail(f"{reason} (code {code})" if code else reason)
        if not errors.may_come_back(code):
            self.end()
            return
        self.home = (self.home + 1) % self._homes
        pause = backoff.delay(self._attempt, random.random())  # noqa: S311 # jitter
        self._attempt += 1
        self._loop.call_later(pause, self._return)

    def end(self) -> None:
        """It will not come back."""
        self.is_over = True
        if not self.record.has_begun:
            self._meter.settle(self._loop.time())

    def check(self, now: float) -> None:
        """Give up on a server that has been silent for too long."""
        if self.due is not None and self.due < now:
            self.lost(0, "the server was silent" if self.is_subscribed else "no answer in time")

    def _return(self) -> None:
        if not self.is_over:
            self._dial(self)

    def _miss(self, position: Position | None, *, is_start: bool = False) -> None:
        epoch, offset = (position.epoch, position.offset) if position else ("", 0)
        self.record.miss(epoch, offset, is_start=is_start)


def describe(error: OSError) -> str:
    """Say what went wrong without the address, so that equal failures are counted together."""
    if isinstance(error, TimeoutError):
        return "cannot connect: no answer in time"
    return f"cannot connect: {os.strerror(error.errno) if error.errno else error}"
