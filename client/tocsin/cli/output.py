"""Lines to standard output that never block the loop, and that notice at once when nobody reads any more."""

from __future__ import annotations

import asyncio
import json
import os
import select
import stat
from collections.abc import Callable
from typing import Any

from tocsin import lenient


class ClosedOutput(Exception):
    """Whoever read standard output has gone."""


class Output:
    """One file descriptor. Each line is written whole before ``write`` returns; cancelling may cut a line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mode = os.fstat(descriptor).st_mode
        self._lock = asyncio.Lock()

    def watch(self, gone: Callable[[], None]) -> None:
        """Call ``gone`` when the reading end of a pipe is closed, even while there is nothing to write."""
        if stat.S_ISFIFO(self._mode):
            loop = asyncio.get_running_loop()
            loop.add_reader(self._descriptor, _once(loop, self._descriptor, gone))

    async def write(self, line: str) -> None:
        """Write one line; raises ``ClosedOutput``."""
        waiting = memoryview(line.encode() + b"\n")
        async with self._lock:
            while waiting:
                await self._writable()
                try:
                    # what poll calls writable takes this much without blocking (POSIX, write)
                    written = os.write(self._descriptor, waiting[: select.PIPE_BUF])
                except BrokenPipeError as error:
                    raise ClosedOutput from error
                waiting = waiting[written:]

    async def _writable(self) -> None:
        if stat.S_ISREG(self._mode) or select.select([], [self._descriptor], [], 0)[1]:
            return
        loop = asyncio.get_running_loop()
        writable = loop.create_future()
        loop.add_writer(self._descriptor, writable.set_result, None)
        try:
            await writable
        finally:
            loop.remove_writer(self._descriptor)


def to_line(value: Any) -> str:
    """One line of JSON that any parser reads, whatever a payload holds."""
    try:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        line.encode()
    except (ValueError, RecursionError):
        return lenient.encode(value)
    return line


def _once(loop: asyncio.AbstractEventLoop, descriptor: int, gone: Callable[[], None]) -> Callable[[], None]:
    def react() -> None:
        loop.remove_reader(descriptor)
        gone()

    return react
