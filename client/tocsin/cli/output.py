"""Lines on standard output: they never block the event loop, and a closed pipe is noticed at once."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import stat
from collections.abc import Callable
from typing import Any

from tocsin.protocol import json_fallback

SENTENCE_CHARACTERS = 1000
_TERMINAL_CODES = re.compile("[\x7f-\x9f]")


class ClosedOutput(Exception):
    """The reader of standard output has closed the pipe."""


class Output:
    """One file descriptor. ``write`` returns once its line is written; cancelling may cut the line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mode = os.fstat(descriptor).st_mode
        self._lock = asyncio.Lock()

    def watch(self, on_closed: Callable[[], None]) -> None:
        """Call ``on_closed`` when the reader of a pipe closes it, even while there is nothing to write."""
        if stat.S_ISFIFO(self._mode):
            loop = asyncio.get_running_loop()
            loop.add_reader(self._descriptor, _once(loop, self._descriptor, on_closed))

    async def write(self, line: str) -> None:
        """Write one line. Raises ``ClosedOutput``."""
        rest = memoryview(line.encode() + b"\n")
        async with self._lock:
            while rest:
                await self._writable()
                try:
                    # a writable descriptor takes this much without blocking (POSIX, write)
                    written = os.write(self._descriptor, rest[: select.PIPE_BUF])
                except BrokenPipeError as error:
                    raise ClosedOutput from error
                rest = rest[written:]

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
    """Return one line of JSON that every parser accepts, for any payload."""
    try:
        line = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        line.encode()
    except (ValueError, RecursionError):
        line = json_fallback.encode(value)
    # JSON escapes only the control codes below U+0020; a terminal also acts on these
    return _TERMINAL_CODES.sub(lambda code: f"\\u{ord(code[0]):04x}", line)


def printable(sentence: str) -> str:
    """Return a sentence that may hold words of a server, for a terminal: one line, without control codes."""
    short = sentence if len(sentence) <= SENTENCE_CHARACTERS else f"{sentence[:SENTENCE_CHARACTERS]}…"
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in short)


def _once(
    loop: asyncio.AbstractEventLoop, descriptor: int, on_closed: Callable[[], None]
) -> Callable[[], None]:
    def react() -> None:
        loop.remove_reader(descriptor)
        on_closed()

    return react
