"""The stage: a cluster, subscribers and publishers at work, and what a fault does to them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Generic

from tests.faults.balancer import Balancer, balancing
from tests.faults.cluster import NAMESPACE, Home
from tests.faults.publishing import Publishing
from tests.faults.record import Journal, Record, Tally
from tests.faults.subscribers import EventWire, Subscribe, Wire, by_client, by_event_stream
from tests.support.timing import STARTED, TICK
from tocsin import Position

CHANNELS = [f"{NAMESPACE}:{number}" for number in range(10)]

CONNECTION_ENDED = "a subscriber's connection ended"
LINK_BROKEN = "redis_disconnected"
LOG_DIED = "the log cannot mend"
MASTER_CHANGED = "cluster_master_added"
TOO_SLOW = '"code": 3008'
"""Signs that somebody noticed: the first is a subscriber's, the others are in nodes' logs."""

LATE_SECONDS = 60 * TICK
"""How late a sign may come on a machine that is busy, or stalls."""
DEAF_SECONDS = 3.0
"""A node notices in this time that it hears nothing, or is not answered; then a sign may still be late."""
LEAST_SHARE = 1 / 20
"""Of their rate. Publishers reach it on any machine while a fault lasts that does not stop them."""


@dataclass(frozen=True)
class Size:
    """How much of everything. Times in seconds, `rate` in publications a second."""

    subscribers: int
    rate: float
    frozen_seconds: float


SHORT = Size(subscribers=60, rate=50, frozen_seconds=3)
FULL = Size(subscribers=300, rate=200, frozen_seconds=5)


class Logs(Enum):
    """What becomes of the channels' logs. Who subscribed to one that dies must be told, and nobody else."""

    LIVE = 0
    MAY_DIE = 1
    DIE = 2


@dataclass(frozen=True)
class Fault(Generic[Home]):
    """Something that goes wrong. `strike` returns once it is over; what it broke may still have to heal.

    `sign` are the words by which a log or a subscriber shows that it was noticed. Without a sign nobody may
    notice anything. It comes within `sign_seconds`, which are infinite where the design has no time for it.
    Only where it says so connections may end, and publishers go on while it lasts.
    """

    name: str
    strike: Callable[[Stage[Home]], Awaitable[None]]
    sign: str = ""
    sign_seconds: float = math.inf
    logs: Logs = Logs.LIVE
    ends_connections: bool = False
    lets_publish: bool = False

    def complain(self, seen: Seen) -> list[str]:
        """What was not as promised, but for what the record counts."""
        complaints = []
        if seen.untold or seen.overtold:
            complaints.append(
                f"{seen.untold} should have been told and were not, {seen.overtold} the other way round"
            )
        if (seen.dead and self.logs is Logs.LIVE) or (seen.dead < len(CHANNELS) and self.logs is Logs.DIE):
            complaints.append(f"{seen.dead} of {len(CHANNELS)} logs died")
        if seen.ended and not self.ends_connections:
            complaints.append(f"{seen.ended} connections ended")
        if seen.detected_seconds is None:
            if self.sign:
                complaints.append("nobody noticed it")
        elif not self.sign:
            complaints.append("somebody noticed something")
        elif seen.detected_seconds > self.sign_seconds:
            complaints.append(f"noticed after {seen.detected_seconds:.1f} s")
        if self.lets_publish and seen.published < LEAST_SHARE * seen.rate * seen.lasted_seconds:
            complaints.append(f"only {seen.published} publications in {seen.lasted_seconds:.1f} s")
        if not seen.is_published_after:
            complaints.append("nobody published any more")
        return complaints


@dataclass(frozen=True)
class Seen:
    """How a fault went.

    `dead` logs; subscriptions that were not told that theirs died, or were told and it had not; connections
    that ended. Seconds until it was detected, and that it lasted; publications that were acknowledged in this
    time, at `rate` a second if nothing had been wrong, and whether any were afterwards.
    """

    dead: int = 0
    untold: int = 0
    overtold: int = 0
    ended: int = 0
    detected_seconds: float | None = None
    lasted_seconds: float = 0
    published: int = 0
    rate: float = 0
    is_published_after: bool = True


@dataclass(frozen=True)
class Setting(Generic[Home]):
    """Where faults strike: `open` runs the cluster, `brief` are those of its faults that heal fast."""

    open: Callable[[Path], AbstractAsyncContextManager[Home]]
    brief: Sequence[Fault[Home]]
    long: Sequence[Fault[Home]] = ()

    @property
    def faults(self) -> list[Fault[Home]]:
        """All of them."""
        return [*self.brief, *self.long]


@dataclass(frozen=True)
class Outcome:
    """What became of a fault. `owed_told` are the subscriptions whose log died.

    `detected_seconds` are from the strike to the first sign, `healed_seconds` from the fault's end until
    everybody had everything. `remarks` say what is not as promised.
    """

    name: str
    tally: Tally
    owed_told: int
    detected_seconds: float | None
    lasted_seconds: float
    healed_seconds: float
    remarks: Sequence[str]

    @property
    def is_as_promised(self) -> bool:
        """Nothing lost, twice or late; told is everybody whose log died, and nobody else."""
        return self.tally.is_clean and not self.remarks


class Stage(Generic[Home]):
    """Everything a fault can reach. `journals` are those of all subscribers."""

    def __init__(self, cluster: Home, size: Size, balancer: Balancer, tasks: asyncio.TaskGroup) -> None:
        self.cluster = cluster
        self.size = size
        self.record = Record()
        self.publishing = Publishing(cluster, self.record, CHANNELS, size.rate)
        self.journals: list[Journal] = []
        self._balancer = balancer
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []
        self._ends: list[float] = []
        self._epochs: dict[str, str] = {}

    def subscribe(self, kind: Subscribe, channels: Sequence[str]) -> None:
        """Add a subscriber."""
        who = f"{kind.__qualname__} {len(self.journals)}"
        journals = [Journal(self.record, channel, who) for channel in channels]
        self.journals += journals
        self.run(kind(self._balancer.url, journals))

    def see_end(self) -> None:
        """A subscriber's connection ended, and the subscriber did not end it."""
        self._ends.append(time.monotonic())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something until the end. Its failure is that of the stage."""
        self._running.append(self._tasks.create_task(work))

    def end(self) -> None:
        """Stop publishers and subscribers."""
        for task in self._running:
            task.cancel()

    async def suffer(self, fault: Fault[Home]) -> Outcome:
        """Let a fault strike, and wait until it is healed."""
        await self.cluster.settle()
        self._balancer.spread()  # a node that came back has nobody, and what befalls it would befall nobody
        await self.heal()
        before = self.record.tally.since(Tally())
        for journal in self.journals:
            journal.is_told = False
        answered, struck = self.publishing.answered, time.monotonic()
        await fault.strike(self)
        answered, over = self.publishing.answered - answered, time.monotonic()
        await self.heal()
        goes_on = await self.publishing.goes_on()
        healed = time.monotonic()
        dead = await self.audit()
        sign = self._first_sign(fault.sign, struck)
        seen = Seen(
            len(dead),
            sum(journal.channel in dead and not journal.is_told for journal in self.journals),
            sum(journal.channel not in dead and journal.is_told for journal in self.journals),
            sum(at >= struck for at in self._ends),
            None if sign is None else sign - struck,
            over - struck,
            answered,
            self.size.rate,
            goes_on,
        )
        remarks = [*self.record.remarks, *fault.complain(seen)]
        self.record.remarks.clear()
        return Outcome(
            fault.name,
            self.record.tally.since(before),
            sum(journal.channel in dead for journal in self.journals),
            seen.detected_seconds,
            seen.lasted_seconds,
            healed - over,
            remarks,
        )

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

    async def audit(self) -> set[str]:
        """Compare what was acknowledged with the logs; the channels whose log is not the one it was."""
        owed = {channel: self.record.take_acknowledged(channel) for channel in CHANNELS}
        logs = await asyncio.gather(*(self.publishing.log(*each) for each in owed.items()))
        dead = set()
        for (channel, places), log in zip(owed.items(), logs, strict=True):
            epoch = log.position.epoch
            self.record.audit(channel, places, epoch, log.publications)
            if self._epochs.setdefault(channel, epoch) != epoch:
                self._epochs[channel] = epoch
                dead.add(channel)
        return dead

    def _first_sign(self, sign: str, since: float) -> float | None:
        """When the first sign was seen, if any was; without a given one, any sign counts."""
        said = [*self.cluster.said(), *((at, CONNECTION_ENDED) for at in self._ends)]
        signs = (sign,) if sign else (CONNECTION_ENDED, LINK_BROKEN, LOG_DIED, MASTER_CHANGED, TOO_SLOW)
        return min(
            (at for at, line in said if at >= since and any(one in line for one in signs)), default=None
        )


def _kinds(stage: Stage[Home]) -> Sequence[Subscribe]:
    return by_client, by_event_stream, Wire(stage.see_end).subscribe, EventWire(stage.see_end).subscribe


def _channels_of(number: int) -> list[str]:
    """One channel each, the same for one of every kind, and for every seventh subscriber another one."""
    first = number // 4 % len(CHANNELS)
    return [CHANNELS[first], CHANNELS[first - 3]] if number % 7 == 0 else [CHANNELS[first]]


@contextlib.asynccontextmanager
async def staged(setting: Setting[Home], directory: Path, size: Size) -> AsyncIterator[Stage[Home]]:
    """Everybody subscribed, all nodes ready, and publications under way."""
    async with (
        setting.open(directory) as cluster,
        balancing(cluster.ports) as balancer,
        asyncio.TaskGroup() as tasks,
    ):
        stage = Stage(cluster, size, balancer, tasks)
        try:
            stage.run(cluster.watch())
            await cluster.until_ready()  # so that every node has subscribers of every channel
            for number in range(size.subscribers):
                stage.subscribe(_kinds(stage)[number % 4], _channels_of(number))
            await stage.heal()
            await stage.audit()
            stage.run(stage.publishing.run())
            yield stage
        finally:
            stage.end()
