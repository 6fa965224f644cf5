"""The stage: a cluster, subscribers and publishers at work, and what a fault does to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.balancer import balancing
from tests.faults.cluster import NAMESPACE, Cluster, clustered
from tests.faults.publishing import Publishing
from tests.faults.record import Journal, Record, Tally
from tests.faults.subscribers import Subscribe, Wire, by_client, by_event_stream
from tests.support.timing import STARTED
from tocsin import Position

CHANNELS = [f"{NAMESPACE}:{number}" for number in range(10)]


@dataclass(frozen=True)
class Size:
    """How much of everything. Times in seconds, `rate` in publications a second."""

    subscribers: int
    rate: float
    frozen_seconds: float


SHORT = Size(subscribers=60, rate=50, frozen_seconds=2)
FULL = Size(subscribers=300, rate=200, frozen_seconds=5)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. `strike` returns once it is over; what it broke may still have to heal.

    Where the log dies nothing can be recovered, and everybody must be told; anywhere else nobody may be.
    """

    name: str
    strike: Callable[[Stage], Awaitable[None]]
    log_dies: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of it. `healed_seconds` are from the fault's end until everybody had everything."""

    fault: Fault
    tally: Tally
    lasted_seconds: float
    healed_seconds: float
    untold: int
    remarks: tuple[str, ...]

    @property
    def is_as_promised(self) -> bool:
        """Nothing lost, twice or late; told is everybody whose log died, and nobody else."""
        is_told_right = not self.untold if self.fault.log_dies else not self.tally.told
        return self.tally.is_clean and is_told_right


class Stage:
    """Everything a fault can reach. `journals` are those of all subscribers."""

    def __init__(self, cluster: Cluster, size: Size, url: str, tasks: asyncio.TaskGroup) -> None:
        self.cluster = cluster
        self.size = size
        self.record = Record()
        self.publishing = Publishing(cluster, self.record, CHANNELS, size.rate)
        self.journals: list[Journal] = []
        self._url = url
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []

    def subscribe(self, kind: Subscribe, channels: Sequence[str]) -> None:
        """Add a subscriber."""
        who = f"{kind.__qualname__} {len(self.journals)}"
        journals = [Journal(self.record, channel, who) for channel in channels]
        self.journals += journals
        self.run(kind(self._url, journals))

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until the end. Its failure is that of the stage."""
        self._running.append(self._tasks.create_task(work))

    def end(self) -> None:
        """Stop publishers and subscribers."""
        for task in self._running:
            task.cancel()

    async def suffer(self, fault: Fault) -> Outcome:
        """Let a fault strike, and wait until it is healed."""
        clock = asyncio.get_running_loop().time
        before = self.record.tally.since(Tally())
        for journal in self.journals:
            journal.is_told = False
        started = clock()
        await fault.strike(self)
        ended = clock()
        await self.heal()
        healed = clock()
        await self._audit()
        untold = sum(not journal.is_told for journal in self.journals)
        tally = self.record.tally.since(before)
        remarks = tuple(self.record.remarks)
        self.record.remarks.clear()
        return Outcome(fault, tally, ended - started, healed - ended, untold, remarks)

    async def heal(self) -> None:
        """Wait until all nodes are ready, and everybody has everything that was published until now."""
        await self.arrive(self.journals, await self.mark(CHANNELS))
        await self.cluster.until_ready()

    async def mark(self, channels: Sequence[str]) -> dict[str, Position]:
        """Publish to each channel; the positions are where whoever has everything must be."""
        marks = await asyncio.gather(*(self.publishing.publish(channel) for channel in channels))
        return dict(zip(channels, marks, strict=True))

    async def arrive(self, journals: Sequence[Journal], goals: dict[str, Position]) -> None:
        """Wait until these have everything up to these positions. What does not come in time is lost."""
        count = asyncio.Semaphore(0)
        for journal in journals:
            journal.call_at(goals[journal.channel], count.release)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTED):
                for _ in journals:
                    await count.acquire()
        for journal in journals:
            journal.give_up()

    async def _audit(self) -> None:
        for channel in CHANNELS:
            owed = self.record.take_acknowledged(channel)
            log = await self.publishing.history(channel)
            self.record.audit(channel, owed, log.position.epoch, log.publications)


def _channels_of(number: int) -> list[str]:
    """One channel each, and for every seventh subscriber another one."""
    first = number % len(CHANNELS)
    return [CHANNELS[first], CHANNELS[first - 3]] if number % 7 == 0 else [CHANNELS[first]]


@contextlib.asynccontextmanager
async def staged(directory: Path, size: Size) -> AsyncIterator[Stage]:
    """Everybody subscribed, all nodes ready, and publications under way."""
    async with clustered(directory) as cluster, balancing(cluster.ports) as url, asyncio.TaskGroup() as tasks:
        stage = Stage(cluster, size, url, tasks)
        try:
            stage.run(cluster.watch())
            for number in range(size.subscribers):
                kind = (by_client, by_event_stream, Wire().subscribe)[number % 3]
                stage.subscribe(kind, _channels_of(number))
            await stage.heal()
            stage.run(stage.publishing.run())
            yield stage
        finally:
            stage.end()
