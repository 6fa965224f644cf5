"""Equal deadlines: one timer for all that may take equally long.

The first to begin is then the first due, and a dict in the order of insertion is their queue. Most end in
time, and cost neither a timer nor its cancellation.

The mutable state is the owners with their deadlines, and the timer. Only the methods of `EqualDeadlines`
change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import takewhile
from typing import Generic, TypeVar

Owner = TypeVar("Owner")

SHORTEST_DELAY = 0.001
"""In seconds. uvloop rounds to milliseconds, so that a shorter delay may pass without time passing."""


class EqualDeadlines(Generic[Owner]):
    """Calls `on_due(owner)` for each owner that was added and not removed `seconds` later. For one loop."""

    __slots__ = ("_deadlines", "_loop", "_on_due", "_seconds", "_timer")

    def __init__(self, seconds: float, on_due: Callable[[Owner], object]) -> None:
        self._seconds = seconds
        self._on_due = on_due
        self._deadlines: dict[Owner, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def add(self, owner: Owner) -> float:
        """Begin the deadline of an owner that has none. Returns it, by the clock of the event loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # a system call, before Python 3.12
        deadline = self._deadlines[owner] = self._loop.time() + self._seconds
        if self._timer is None:  # else it is set for an earlier deadline, which may have ended
            self._timer = self._loop.call_at(deadline, self._on_timer, self._loop)
        return deadline

    def remove(self, owner: Owner) -> None:
        """End the deadline of an owner. Does nothing if it has none."""
        self._deadlines.pop(owner, None)

    def close(self) -> None:
        """Forget all owners, and cancel the timer."""
        self._deadlines.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the owners that are due, and wait for the next deadline, if there is one."""
        self._timer, now = None, loop.time()
        due = [owner for owner, _ in takewhile(lambda item: item[1] <= now, self._deadlines.items())]
        for owner in due:
            del self._deadlines[owner]
        for first in self._deadlines.values():
            self._timer = loop.call_later(max(SHORTEST_DELAY, first - now), self._on_timer, loop)
            break
        for owner in due:
            self._on_due(owner)
