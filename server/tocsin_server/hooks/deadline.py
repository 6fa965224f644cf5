r"""The deadlines of one hook: each of its calls may take equally long, so that one timer serves them all.

    begin --> answered: end
          \--> due: the task is cancelled --> take: the call ends with DeadlinePassed

The mutable state is the tasks that have begun one, in the order in which they are due, those that were
cancelled, and the timer. Only the methods of `Deadlines` change it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any, TypeAlias

Task: TypeAlias = "asyncio.Task[Any]"

SHORTEST_DELAY = 0.001
"""In seconds. The clock of an event loop may be so much ahead of this one."""


class DeadlinePassed(Exception):
    """A hook did not answer in time."""


class Deadlines:
    """Cancels each task that has begun a deadline and not ended it `seconds` later. For one event loop."""

    __slots__ = ("_due_at", "_passed", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due_at: dict[Task, float] = {}
        self._passed: set[Task] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: Task) -> None:
        """Begin a deadline. `end` must follow."""
        self._due_at[task] = time.monotonic() + self._seconds
        if self._timer is None:  # else it is set for an earlier deadline, which may have ended
            self._timer = task.get_loop().call_later(self._seconds, self._on_timer)

    def take(self, task: Task) -> bool:
        """Whether a CancelledError comes from the deadline alone, so that it ends here."""
        if task not in self._passed:
            return False
        self._passed.discard(task)
        return task.uncancel() == 0

    def end(self, task: Task) -> None:
        """End a deadline. A hook that went on although it was cancelled leaves no cancellation behind."""
        self._due_at.pop(task, None)
        if task in self._passed:
            self.take(task)

    def close(self) -> None:
        """Cancel the timer. From now on no task is cancelled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._timer = None
        now = time.monotonic()
        while self._due_at:
            first, due_at = next(iter(self._due_at.items()))
            if due_at > now:
                delay = max(SHORTEST_DELAY, due_at - now)
                self._timer = first.get_loop().call_later(delay, self._on_timer)
                return
            del self._due_at[first]
            self._passed.add(first)
            first.cancel()
