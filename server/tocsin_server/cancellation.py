r"""Cancels the functions of the application, also those that ignore it.

    running --end--> cancelled, ends within CANCEL_SECONDS
                 \-> goes on: it is left, and nothing waits for it

Such a task belongs to its owner alone, which ends it: `asyncio.all_tasks` does not know it. So `asyncio.run`
does not wait for one that is left, which it would do without a limit.

The mutable state is the tasks of a `FunctionTasks`. Only its methods change it.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _unregister_task
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any, Self, TypeVar

T = TypeVar("T")

CANCEL_SECONDS = 1.0
"""How long a function may take to end once it is cancelled, as to roll a transaction back."""


class CancelledByFunction(Exception):
    """The function awaited something that was cancelled. Its own task was not."""


def current_task(loop: asyncio.AbstractEventLoop | None) -> asyncio.Task[Any]:
    """Return the task that this code runs in. Raises RuntimeError outside a task.

    Without the `loop` that runs it, Python 3.11 makes a system call.
    """
    if (task := asyncio.current_task(loop)) is None:
        raise RuntimeError("this code runs in no task")
    return task


def is_cancelled(error: BaseException) -> bool:
    """Whether an exception means that the current task is cancelled, so that it must be raised again.

    A function that awaits a task of its own which was cancelled raises CancelledError, too. That is a fault
    of this function, and must not end the task that called it.
    """
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def own(task: asyncio.Task[Any]) -> None:
    """Let only the caller end a task, which it must do with `end`."""
    _unregister_task(task)


async def end(
    tasks: Collection[asyncio.Task[T]], on_left: Callable[[asyncio.Task[T]], object] = lambda _task: None
) -> None:
    """Cancel tasks that the caller owns, and wait for their end, at most CANCEL_SECONDS.

    `on_left` is called with each that is left. If the caller is cancelled meanwhile, the rest is left at
    once.
    """
    for task in tasks:
        task.cancel()
    try:
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)
    finally:
        for task in tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - as asyncio.gather does
                on_left(task)


class FunctionTasks:
    """Tasks that run functions of the application.

    At the end of its context it waits for them, and ends them if it is cancelled. `on_left` is called with
    each that is left.
    """

    def __init__(self, on_left: Callable[[asyncio.Task[None]], object]) -> None:
        self._on_left = on_left
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Begin a task in the context. `name` is that of the task."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        own(task)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._tasks and kind is None:
                await asyncio.wait(self._tasks)
        finally:
            await end(list(self._tasks), self._on_left)


async def call_as_task(
    function: Coroutine[Any, Any, T], name: str, on_left: Callable[[asyncio.Task[T]], object]
) -> T:
    """Return the result of an async function of the application, which runs in a task of its own.

    If the caller is cancelled, the function is, and `on_left` is called with its task if it is left. `name`
    is that of the task. Raises what the function raises, or CancelledByFunction.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(function, name=name)
    own(task)
    try:
        await _until_done(task, loop, on_left)
        if task.cancelled():
            raise CancelledByFunction
        return task.result()
    finally:
        del task  # else what the function raised refers to this frame, and so to itself


async def _until_done(
    task: asyncio.Task[T], loop: asyncio.AbstractEventLoop, on_left: Callable[[asyncio.Task[T]], object]
) -> None:
    """Wait for the end of a task. If the caller is cancelled, end it."""
    done = loop.create_future()
    task.add_done_callback(partial(_set, done))
    try:
        await done
    except asyncio.CancelledError:
        await end((task,), on_left)
        if task.done() and not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it
        raise


def _set(done: asyncio.Future[None], _: object) -> None:
    if not done.done():
        done.set_result(None)
