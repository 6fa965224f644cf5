"""A place: one node's name, its cable to Redis, and the process that bears the name just now."""

import asyncio
import contextlib
import signal
import sys
import time
from asyncio import StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import cast

import msgspec

from tocsin_demo.cable import Cable
from tocsin_demo.wire import LONGEST_LINE, Condition, Member, Plan, Report, line_of

STOP_SECONDS = 15.0
"""How long a node may take to end. Then it is killed."""


class Place:
    """What is known of it, as long as the supervisor runs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cable: Cable | None = None
        self.healing: asyncio.TimerHandle | None = None
        self.process: Process | None = None
        self.condition: Condition = "starting"
        self.is_doomed = False
        """Somebody here has told the process to end."""
        self.address = ""
        self.report: Report | None = None
        self.started_at = self.silent_until = self.lapses_by = self.returns_at = 0.0

    @property
    def member(self) -> Member:
        """As the nodes are told of it."""
        return Member(
            self.name,
            self.condition,
            0 if self.process is None else self.process.pid,
            self.address,
            self.started_at,
            self.report,
            self.silent_until,
            self.lapses_by,
            self.returns_at,
        )

    def tell(self, message: msgspec.Struct) -> None:
        """Over its standard input; a process that has just died is told nothing.

        Its input may be gone before it is known to have ended.
        """
        if self.process is not None and not _input(self.process).is_closing():
            _input(self.process).write(line_of(message))

    def signal(self, number: signal.Signals) -> None:
        """To the process, if there is one that still lives."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    @contextlib.asynccontextmanager
    async def occupied(self, plan: Plan) -> AsyncIterator[Process]:
        """A process under this name, told to end on leaving and then waited for."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tocsin_demo.member"),
            stdin=PIPE,
            stdout=PIPE,
            limit=LONGEST_LINE,
            start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on
        )
        self.process, self.address, self.report = process, "", None
        self.condition, self.is_doomed = "starting", False
        self.started_at, self.returns_at = milliseconds(), 0
        try:
            self.tell(plan)
            yield process
        finally:
            await self._end(process)

    async def _end(self, process: Process) -> None:
        """Tell it to end. It is killed if it takes too long, or if we may not wait."""
        self.signal(signal.SIGTERM)
        _input(process).close()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
        finally:
            self.signal(signal.SIGKILL)


def milliseconds(seconds_from_now: float = 0) -> float:
    """Since 1970."""
    return round((time.time() + seconds_from_now) * 1000, 1)


def _input(process: Process) -> StreamWriter:
    return cast(StreamWriter, process.stdin)
