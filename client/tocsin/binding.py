"""The event loop, thread and process that an object belongs to."""

from __future__ import annotations

import asyncio
import os

from .errors import WrongUse


class LoopBinding:
    """Binds an object to the event loop that runs now. ``require`` refuses other loops, threads and forks.

    asyncio's objects do not check this themselves: in another thread they wait without end, and after a fork
    two processes would write to one socket.
    """

    __slots__ = ("_name", "_process", "loop")

    def __init__(self, name: str) -> None:
        self.loop = asyncio.get_running_loop()
        self._name = name
        self._process = os.getpid()

    @property
    def is_forked(self) -> bool:
        """Whether this is a copy in a process that was forked later."""
        return os.getpid() != self._process

    def require(self) -> None:
        """Raise ``WrongUse`` outside of the loop, thread and process of the object."""
        if self.is_forked:
            raise WrongUse(
                f"this {self._name} belongs to another process: make a new one after a fork, "
                "since a connection cannot be shared"
            )
        if _running_loop() is not self.loop:
            raise WrongUse(
                f"this {self._name} belongs to another event loop: make one for each loop, or call it with "
                "asyncio.run_coroutine_threadsafe"
            )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
