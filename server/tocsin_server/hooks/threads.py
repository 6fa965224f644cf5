"""Threads for hooks that are plain functions, so that none of them blocks the event loop.

A function that runs cannot be cancelled. Its answer is ignored once the deadline has passed, and its thread
counts until it ends. The threads do not keep the process alive.

The mutable state is the idle threads, and how many there may be besides. Only methods of `Threads` change
it, on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple


class _Job(NamedTuple):
    """A function with its argument, and what is called on the loop with its result or its exception."""

    call: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    done: Callable[[Any, BaseException | None], None]


class _Thread:
    """One thread, which runs a job at a time."""

    def __init__(self, number: int) -> None:
        self.jobs: SimpleQueue[_Job | None] = SimpleQueue()
        threading.Thread(target=self._run, name=f"tocsin-hook-{number}", daemon=True).start()

    def _run(self) -> None:
        while (job := self.jobs.get()) is not None:
            result, error = None, None
            try:
                result = job.call()
            except BaseException as raised:  # noqa: BLE001 - handed to the loop's thread
                error = raised
            with suppress(RuntimeError):  # the loop is closed: the node has stopped
                job.loop.call_soon_threadsafe(job.done, result, error)
            del job, result, error


class Threads:
    """At most `limit` plain functions run at once."""

    def __init__(self, limit: int) -> None:
        self._idle: list[_Thread] = []
        self._made = 0
        self._free = asyncio.Semaphore(limit)
        self._is_closed = False

    @property
    def count(self) -> int:
        """How many threads there are."""
        return self._made

    @property
    def busy_count(self) -> int:
        """How many of them run a function."""
        return self._made - len(self._idle)

    async def run(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Return what a function returns in a thread. Cancelled, the function goes on, and is ignored."""
        await self.reserve()
        return await self.run_reserved(function, argument)

    async def reserve(self) -> None:
        """Wait for a thread. `run_reserved` must follow at once."""
        await self._free.acquire()

    async def run_reserved(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """As `run`, in the thread that `reserve` waited for."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        thread = self._take_thread()

        context = contextvars.copy_context()
        done = partial(self._take_result, thread, future)
        thread.jobs.put(_Job(lambda: context.run(function, argument), loop, done))
        try:
            return await future
        finally:
            del future, done  # else what the function raised refers to this frame, and so to itself

    def _take_result(
        self, thread: _Thread, future: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        self._give_back(thread)
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            future.set_exception(error)
        else:  # what a future cannot hold, or what would end the event loop
            future.set_exception(RuntimeError(f"the function raised {type(error).__name__}"))

    def close(self) -> None:
        """End the idle threads at once, and each other one after its function."""
        self._is_closed = True
        for thread in self._idle:
            thread.jobs.put(None)
        self._made -= len(self._idle)
        self._idle.clear()

    def _take_thread(self) -> _Thread:
        if self._idle:
            return self._idle.pop()
        try:
            thread = _Thread(self._made + 1)
        except BaseException:  # the system may refuse a further thread
            self._free.release()
            raise
        self._made += 1
        return thread

    def _give_back(self, thread: _Thread) -> None:
        if self._is_closed:
            self._made -= 1
            thread.jobs.put(None)
        else:
            self._idle.append(thread)
        self._free.release()


def is_async(function: Callable[[Any], Any]) -> bool:
    """Whether a function of an application is async, so that it needs no thread."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method, to see whether it is async
    )
