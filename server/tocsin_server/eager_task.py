r"""Eager tasks: the first step of a task runs in the call that starts it, not in the loop's next turn.

    start_eagerly --first step--> done
                             \--> waits, as any task of the loop

So a task that never waits costs no turn of the event loop. It is an `asyncio.Task` in all respects: it is the
current task in its first step, too, and has a context of its own. The module has no state.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

if sys.version_info >= (3, 12):

    def start_eagerly(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Task[T]:
        """Return a task of the running `loop` whose first step has run.

        What the coroutine raises is the exception of the task. As every step does, the first raises
        KeyboardInterrupt and SystemExit besides: this function raises them.
        """
        return asyncio.Task(coroutine, loop=loop, eager_start=True)

else:

    def start_eagerly(coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> asyncio.Task[T]:
        """Do what `eager_start` does from Python 3.12 on.

        A task asks its loop for its first step when it is made. Here the caller takes this one callback from
        it, and calls it. No other code runs in between, except finalizers.
        """
        own = copy_context()
        steps: list[Callable[[], object]] = []
        call_soon, attributes = loop.call_soon, getattr(loop, "__dict__", None)
        if attributes is None or "call_soon" in attributes:
            return loop.create_task(coroutine)

        def take_step(callback: Callable[..., object], *args: Any, context: Context | None = None) -> object:
            if context is not own:
                return call_soon(callback, *args, context=context)
            steps.append(callback)
            return None

        attributes["call_soon"] = take_step
        try:
            task = asyncio.Task(coroutine, loop=loop, context=own)
        finally:
            del attributes["call_soon"]
        current, step = asyncio.current_task(loop), steps.pop()
        if current is None:
            own.run(step)
        else:
            _leave_task(loop, current)
            try:
                own.run(step)
            finally:
                _enter_task(loop, current)
        return task
