"""Tells a task's own cancellation from one that a function of the application raised (no state)."""

from __future__ import annotations

import asyncio
from typing import Any


def current_task(loop: asyncio.AbstractEventLoop | None) -> asyncio.Task[Any]:
    """Return the task that this code runs in. Raises RuntimeError outside a task.

    Without the `loop` that runs it, Python 3.11 makes a system call.
    """
    if (task := asyncio.current_task(loop)) is None:
        raise RuntimeError("hooks are asked in a task")
    return task


def is_cancelled(error: BaseException) -> bool:
    """Whether an exception means that the current task is cancelled, so that it must be raised again.

    A function that awaits a task of its own which was cancelled raises CancelledError, too. That is a fault
    of this function, and must not end the task that called it.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
