"""The supervisor: restarts a component of the engine that raised, and reports it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

RESTART_PAUSE_SECONDS = 1.0
"""The pause before a failed component is restarted."""

log = structlog.get_logger()


class Supervisor:
    """Supervises the components of one engine."""

    def __init__(self) -> None:
        self.unready_reason = ""
        """Which component failed, as a sentence. Empty while all run."""

    async def supervise(self, name: str, run: Callable[[], Awaitable[object]]) -> NoReturn:
        """Run a component until cancelled, and restart it whenever it fails.

        `name` completes "the engine's …".
        """
        while True:
            try:
                await run()
            except Exception:
                _raise_if_cancelled()
                log.exception("engine_component_failed", component=name)
                self.unready_reason = f"Internal error in the engine's {name}; see the log. It is restarting."
            await asyncio.sleep(RESTART_PAUSE_SECONDS)
            self.unready_reason = ""


def _raise_if_cancelled() -> None:
    """Raise CancelledError if the current task is being cancelled.

    A task group that fails while it is cancelled raises its failure instead of CancelledError. If that were
    treated as an ordinary failure, the task would never end. (Up to Python 3.12, a group whose body is over
    counts a failure as a cancellation of its task. So a body must wait as long as its tasks may fail.)
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
