"""Tasks that mostly end in the turn of the event loop in which they begin.

A `TaskGroup` is told of the end of each task in a further turn. Here a task removes itself.

The mutable state is the tasks that have not ended. Only the methods of `ShortTasks` change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Self


class ShortTasks:
    """Owns tasks. At the end of its context it waits for them, and cancels them if that is cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """Return how many tasks have not ended."""
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run work, which raises nothing, as a task."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(self._run(work))
        self._tasks.add(task)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        finally:
            task = asyncio.current_task()
            if task is not None:
                self._tasks.discard(task)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is not None:
                self._cancel()
            while self._tasks:
                await asyncio.wait(self._tasks)
        except asyncio.CancelledError:
            self._cancel()
            await asyncio.wait(self._tasks)
            raise
        finally:
            self._tasks.clear()

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()
