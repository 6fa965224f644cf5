"""The keeper: runs the engine's parts for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

PAUSE_SECONDS = 1.0
"""Before a part that died is run again."""

log = structlog.get_logger()


class Keeper:
    """A part that dies of a mistake is news, and is run again."""

    def __init__(self) -> None:
        self.mistake = ""
        """What died, as a sentence; empty if everything runs."""

    async def keep(self, name: str, run: Callable[[], Awaitable[object]]) -> NoReturn:
        """Run a part until cancelled."""
        while True:
            try:
                await run()
            except Exception:
                _raise_if_cancelled()
                log.exception("a part of the engine died, and is run again", part=name)
                self.mistake = f"The engine's {name} died of a mistake, which was logged."
            await asyncio.sleep(PAUSE_SECONDS)
            self.mistake = ""


def _raise_if_cancelled() -> None:
    """A task group that is cancelled raises what fails in it meanwhile, instead of CancelledError.

    Taken for an ordinary failure, nothing would ever end the task. (Up to Python 3.12 a group counts a
    failure as a cancellation of its task, if its body is over by then: so a body waits where tasks may fail.)
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
