r"""The deadlines of one hook: each of its calls may take equally long, so that one timer serves them all.

    begin --> answered: stop
          \--> due: the task is cancelled --> take: the call ends with DeadlinePassed

The mutable state is the calls that have not ended, in the order in which they are due, and the timer. Only
the methods of `Deadlines` and `Deadline` change it.
"""

from __future__ import annotations

import asyncio


class DeadlinePassed(Exception):
    """A hook did not answer in time."""


class Deadlines:
    """Cancels each task that begins one and is not done `seconds` later. Use it in one event loop."""

    __slots__ = ("_seconds", "_timer", "running")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self.running: dict[Deadline, float] = {}
        """When each is due, in seconds of the loop's clock. Only `Deadline.stop` removes one besides."""

    def begin(self) -> Deadline:
        """Begin a deadline of the current task. `stop` must follow."""
        loop = asyncio.get_running_loop()
        deadline = Deadline(self, asyncio.current_task(loop))
        self.running[deadline] = due_at = loop.time() + self._seconds
        if self._timer is None:  # else it is set to an earlier one, or to one that has ended
            self._timer = loop.call_at(due_at, self._on_timer, loop)
        return deadline

    def close(self) -> None:
        """Cancel the timer. From now on no task is cancelled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        while self.running:
            first, due_at = next(iter(self.running.items()))
            if due_at > now:
                self._timer = loop.call_at(due_at, self._on_timer, loop)
                return
            del self.running[first]
            first.cancel_task()


class Deadline:
    """The deadline of one call: `asyncio.timeout` for a task of one's own, in a fraction of its time."""

    __slots__ = ("_before", "_deadlines", "_has_passed", "_task")

    def __init__(self, deadlines: Deadlines, task: asyncio.Task[object] | None) -> None:
        self._deadlines = deadlines
        self._task = task
        self._before = task.cancelling() if task is not None else 0
        self._has_passed = False

    def cancel_task(self) -> None:
        """Cancel the task that has begun it: the deadline has passed."""
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
        self._deadlines.running.pop(self, None)
        if self._has_passed and self._task is not None:
            self._has_passed = False
            self._task.uncancel()
        self._task = None
