"""The tasks of a node: calls of the engine and the application that take time, and background work.

The mutable state is the tasks: in a group with a time limit for its end while the node runs, and those of RPC
methods; and how long they may go on once the node stops. Only the methods of `NodeTasks` change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Self

import structlog

from tocsin_server.cancellation import FunctionTasks
from tocsin_server.errors import EngineError
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.node.session_tasks import log_left_method

STOP_SECONDS = 5.0
"""How long tasks may go on once the node stops; an RPC method that hangs is cancelled then."""

log = structlog.get_logger()


class NodeTasks:
    """Runs coroutines as tasks of one node."""

    def __init__(self, sampled_log: SampledLog) -> None:
        self._sampled_log = sampled_log
        self._group: asyncio.TaskGroup | None = None
        self._rpc_tasks = FunctionTasks(log_left_method)
        self._time_limit: asyncio.Timeout | None = None
        self._is_hurried = False

    @property
    def are_running(self) -> bool:
        """Whether the node runs, so that it has tasks."""
        return self._group is not None

    @property
    def _stop_seconds(self) -> float:
        return 0.0 if self._is_hurried else STOP_SECONDS

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Run tasks inside the context. At its end it waits for them."""
        try:
            async with (
                asyncio.timeout(None) as self._time_limit,
                asyncio.TaskGroup() as self._group,
                self._rpc_tasks,
            ):
                yield self
        except TimeoutError:
            log.warning("tasks_cancelled_at_stop", after_seconds=self._stop_seconds)
        finally:
            self._group = self._time_limit = None

    def stop(self) -> None:
        """Cancel the tasks that are not done after STOP_SECONDS. The end of the context must follow."""
        if self._time_limit is not None and not self._time_limit.expired():
            self._time_limit.reschedule(asyncio.get_running_loop().time() + self._stop_seconds)

    def hurry(self) -> None:
        """Cancel the tasks as soon as the node stops, or now if it is stopping."""
        self._is_hurried = True
        if self._time_limit is not None and self._time_limit.when() is not None:
            self.stop()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work inside the context, as a task for the caller to end. If it fails, the node ends."""
        if self._group is None:
            work.close()
            raise RuntimeError("the node does not run")
        return self._group.create_task(work)

    def spawn(self, work: Coroutine[Any, Any, None], rpc_method: str | None = None) -> None:
        """Run work as a task, if the node runs. A failure is logged and ends only that task.

        `rpc_method` names the method that it calls: one that ignores its cancellation is left
        (cancellation.py).
        """
        if self._group is None:
            work.close()
        elif rpc_method is not None:
            self._rpc_tasks.start(self._guard(work), rpc_method)
        else:
            self._group.create_task(self._guard(work))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except EngineError as error:
            self._sampled_log.write("engine_call_failed", level="warning", error=str(error))
        except Exception:  # noqa: BLE001 - logged as an error
            self._sampled_log.fault("task_failed")
