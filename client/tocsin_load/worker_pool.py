"""The worker processes, as the parent sees them: it starts, instructs and stops them, and adds up reports."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from .histogram import Histogram
from .messages import (
    BeginPublishing,
    Finish,
    Instruction,
    Progress,
    Result,
    Share,
    encode_line,
    report_decoder,
)

LINE_BYTES = 2**30  # a result has a summary for each of a worker's connections
STOP_SECONDS = 3.0
RESULT_SECONDS = 30.0


class WorkerPool:
    """Use it with ``async with``; leaving it ends every worker.

    ``on_progress`` is called after each progress report. ``latency`` sums the latencies reported since its
    reader last replaced it. The mutable state is these two, the last report of each worker, the processes and
    their reader tasks; the readers change it.
    """

    def __init__(self, shares: Sequence[Share]) -> None:
        self.on_progress: Callable[[], None] = lambda: None
        self.latency = Histogram()
        self._shares = shares
        self._processes: list[Process] = []
        self._progress: list[Progress | None] = [None] * len(shares)
        self._results: list[Result | None] = [None] * len(shares)
        self._tasks = asyncio.TaskGroup()
        self._changed = asyncio.Condition()
        self._exited: set[int] = set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for number, share in enumerate(self._shares):
            # in a session of its own, so that Ctrl-C reaches only the parent, which then collects the results
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tocsin_load.worker"),
                stdin=PIPE,
                stdout=PIPE,
                limit=LINE_BYTES,
                start_new_session=True,
            )
            self._processes.append(process)
            self._tasks.create_task(self._read_reports(number, process))
            await self._send(process, share)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()  # a worker ends at the end of its instructions
        await asyncio.gather(*(_end(process) for process in self._processes))
        await self._tasks.__aexit__(None, None, None)

    @property
    def subscribed(self) -> int:
        """The number of connections that are live."""
        return sum(one.subscribed for one in self._reports)

    @property
    def settled(self) -> int:
        """The number of connections that have been live once, or have ended."""
        return sum(one.settled for one in self._reports)

    @property
    def delivered(self) -> int:
        """The number of publications received."""
        return sum(one.delivered for one in self._reports)

    @property
    def lost_connections(self) -> int:
        """The number of live connections that broke."""
        return sum(one.lost_connections for one in self._reports)

    @property
    def connect_seconds(self) -> float:
        """The seconds until the last connection was settled."""
        return max((one.connect_seconds for one in self._reports), default=0.0)

    @property
    def failures(self) -> Counter[str]:
        """The numbers of failures, by reason."""
        failures: Counter[str] = Counter()
        for one in self._reports:
            failures.update(one.failures)
        return failures

    @property
    def dead_workers(self) -> int:
        """The number of workers that ended without a result."""
        return sum(self._results[number] is None for number in self._exited)

    async def wait_settled(self, seconds: float) -> None:
        """Wait until every connection is settled, at most ``seconds``."""
        connections = sum(share.connections for share in self._shares)
        await self._wait(lambda: self.settled >= connections, seconds)

    async def begin_publishing(self, seconds: float) -> None:
        """Instruct the workers that publishing begins, and wait until all have confirmed it."""
        await self._send_all(BeginPublishing())
        await self._wait(
            lambda: all(one is not None and one.is_publishing for one in self._progress), seconds
        )

    async def finish(self, tops: list[int], seconds: float) -> list[Result]:
        """Give connections ``seconds`` at most to receive the last publications. Returns all results."""
        await self._send_all(Finish(tops, seconds))
        workers = range(len(self._shares))
        await self._wait(
            lambda: all(self._results[number] or number in self._exited for number in workers),
            seconds + RESULT_SECONDS,
        )
        return [result for result in self._results if result is not None]

    @property
    def _reports(self) -> list[Progress]:
        return [one for one in self._progress if one is not None]

    async def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until a condition is true, all workers have exited, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(
                    lambda: condition() or len(self._exited) == len(self._shares),
                )

    async def _send_all(self, instruction: Instruction) -> None:
        for process in self._processes:
            with suppress(ConnectionError):
                await self._send(process, instruction)

    async def _send(self, process: Process, instruction: Instruction) -> None:
        if process.stdin is not None:
            process.stdin.write(encode_line(instruction))
            await process.stdin.drain()

    async def _read_reports(self, number: int, process: Process) -> None:
        while process.stdout is not None and (text := await process.stdout.readline()):
            report = report_decoder.decode(text)
            if isinstance(report, Result):
                self._results[number] = report
            else:
                self._progress[number] = report
                self.latency.merge(report.latency)
                self.on_progress()
            await self._notify()
        self._exited.add(number)
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _end(process: Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
