"""The deadline of one hook: `asyncio.timeout` for a task of one's own, in a third of its time.

The mutable state is whether the deadline has passed, and its timer. The timer and the task itself change it.
"""

from __future__ import annotations

import asyncio


class DeadlinePassed(Exception):
    """A hook did not answer in time."""


class Deadline:
    """Cancels the task that makes it, after so many seconds. `stop` must follow."""

    __slots__ = ("_before", "_has_passed", "_task", "_timer")

    def __init__(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._before = self._task.cancelling() if self._task is not None else 0
        self._has_passed = False
        self._timer: asyncio.TimerHandle | None = loop.call_later(seconds, self._pass)

    def _pass(self) -> None:
        self._timer = None
        if self._task is not None:
            self._has_passed = True
            self._task.cancel()

    def take(self) -> bool:
        """Whether a CancelledError comes from the deadline alone, so that it ends here."""
        if not self._has_passed or self._task is None:
            return False
        self._has_passed = False
        return self._task.uncancel() <= self._before

    def stop(self) -> None:
        """End it. A hook that went on although it was cancelled leaves no cancellation behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._has_passed and self._task is not None:
            self._has_passed = False
            self._task.uncancel()
        self._task = None
