"""The worker processes, as their parent sees them: started, ordered, heard and stopped."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Self

from .histogram import Histogram
from .messages import Begin, Finish, Order, Progress, Result, Share, line, read_said

LINE_BYTES = 2**30  # a result holds an account for each of a worker's connections
STOP_SECONDS = 3.0


class Crew:
    """Use it with ``async with``; leaving it ends every worker. ``heard`` is called after each progress."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self.heard: Callable[[], None] = lambda: None
        self.latency = Histogram()  # of the latest half second, as far as workers have told it
        self._shares = shares
        self._processes: list[Process] = []
        self._progress: list[Progress | None] = [None] * len(shares)
        self._results: list[Result | None] = [None] * len(shares)
        self._tasks = asyncio.TaskGroup()
        self._changed = asyncio.Condition()
        self._gone: set[int] = set()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for number, share in enumerate(self._shares):
            # its own session: Ctrl-C is for the parent, which asks the workers for what they have
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tocsin.load.worker"),
                stdin=PIPE,
                stdout=PIPE,
                limit=LINE_BYTES,
                start_new_session=True,
            )
            self._processes.append(process)
            self._tasks.create_task(self._listen(number, process))
            await self._tell(process, share)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.close()  # a worker ends when its orders do
        await asyncio.gather(*(_end(process) for process in self._processes))
        await self._tasks.__aexit__(None, None, None)

    @property
    def subscribed(self) -> int:
        """How many connections are live."""
        return sum(one.subscribed for one in self._told)

    @property
    def settled(self) -> int:
        """How many connections have been live once, or have been given up."""
        return sum(one.settled for one in self._told)

    @property
    def delivered(self) -> int:
        """How many publications were heard."""
        return sum(one.delivered for one in self._told)

    @property
    def lost_connections(self) -> int:
        """How many live connections broke."""
        return sum(one.lost_connections for one in self._told)

    @property
    def connect_seconds(self) -> float:
        """How long it took until the last connection was settled."""
        return max((one.connect_seconds for one in self._told), default=0.0)

    @property
    def failures(self) -> Counter[str]:
        """What failed, by reason."""
        failures: Counter[str] = Counter()
        for one in self._told:
            failures.update(one.failures)
        return failures

    @property
    def died(self) -> int:
        """How many workers ended before they gave their result."""
        return sum(self._results[number] is None for number in self._gone)

    async def settle(self, seconds: float) -> None:
        """Wait until every connection is settled, so many seconds at most."""
        wanted = sum(share.connections for share in self._shares)
        await self._wait(lambda: self.settled >= wanted, seconds)

    async def begin(self, seconds: float) -> None:
        """Tell the workers that publishing begins, and wait until they know."""
        await self._order(Begin())
        await self._wait(lambda: all(one is not None and one.has_begun for one in self._progress), seconds)

    async def finish(self, tops: list[int], seconds: float) -> list[Result]:
        """Let connections hear the last publications, so many seconds at most, and give all results."""
        await self._order(Finish(tops, seconds))
        alive = range(len(self._shares))
        await self._wait(
            lambda: all(self._results[number] or number in self._gone for number in alive), seconds + 30.0
        )
        return [result for result in self._results if result is not None]

    @property
    def _told(self) -> list[Progress]:
        return [one for one in self._progress if one is not None]

    async def _wait(self, is_so: Callable[[], bool], seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(
                    lambda: is_so() or len(self._gone) == len(self._shares),
                )

    async def _order(self, order: Order) -> None:
        for process in self._processes:
            with suppress(ConnectionError):
                await self._tell(process, order)

    async def _tell(self, process: Process, order: Order) -> None:
        if process.stdin is not None:
            process.stdin.write(line(order))
            await process.stdin.drain()

    async def _listen(self, number: int, process: Process) -> None:
        while process.stdout is not None and (text := await process.stdout.readline()):
            said = read_said.decode(text)
            if isinstance(said, Result):
                self._results[number] = said
            else:
                self._progress[number] = said
                self.latency.merge(said.latency)
                self.heard()
            await self._tell_waiting()
        self._gone.add(number)
        await self._tell_waiting()

    async def _tell_waiting(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def _end(process: Process) -> None:
    try:
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
