"""Tasks that mostly end in the turn of the event loop in which they begin.

A `TaskGroup` is told of the end of each task in a further turn. Here a task removes itself.

The mutable state is the tasks that have not ended, by number. Only the methods of `ShortTasks` change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Self


class ShortTasks:
    """Owns tasks. At the end of its context it waits for them, and cancels them if that is cancelled."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._count = 0
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        """Return how many tasks have not ended."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work, which raises nothing, as a task. Outside the context it is not run."""
        if self._loop is None:
            work.close()
            return
        self._count = number = self._count + 1
        self._tasks[number] = self._loop.create_task(self._run(number, work))

    async def _run(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            self._tasks.pop(number, None)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                self._cancel()
            await self._wait()
        except asyncio.CancelledError:
            self._cancel()
            await self._wait()
            raise
        finally:
            self._loop = None

    async def _wait(self) -> None:
        """Wait for all tasks. One that was cancelled before it began has not removed itself."""
        while self._tasks:
            await asyncio.wait(self._tasks.values())
            self._tasks = {number: task for number, task in self._tasks.items() if not task.done()}

    def _cancel(self) -> None:
        for task in self._tasks.values():
            task.cancel()
