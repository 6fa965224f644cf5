"""The environment of a fault: a cluster with subscribers and publishers at work."""

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

from tests.faults.balancer import Balancer, run_balancer
from tests.faults.cluster import NAMESPACE, AnyCluster
from tests.faults.publishing import Publishers
from tests.faults.record import Record, SubscriptionRecord, Tally
from tests.faults.subscribers import (
    HTTP_STREAM_PATH,
    SSE_PATH,
    BareEmulatedConnection,
    BareEventStream,
    BareWebSocket,
    Subscribe,
    by_client,
    by_event_stream,
)
from tests.support.timing import STARTED, TICK
from tocsin import Position

CHANNELS = [f"{NAMESPACE}:{number}" for number in range(10)]

CONNECTION_ENDED = "a subscriber's connection ended"
REDIS_DISCONNECTED = "redis_disconnected"
HISTORY_GAP = "history_gap"
MASTER_ADDED = "cluster_master_added"
"""How a fault is detected. A subscriber reports the first; the others are parts of nodes' log lines."""
DETECTIONS = (CONNECTION_ENDED, REDIS_DISCONNECTED, HISTORY_GAP, MASTER_ADDED)

LATE_SECONDS = 60 * TICK
"""How late a detection may be on a machine that is busy or stalls."""
DEAF_SECONDS = 3.0
"""A node detects within this time that it is deaf or that Redis does not reply."""
LEAST_SHARE = 1 / 20
"""The share of their rate that publishers reach on any machine during a fault that allows publishing."""


@dataclass(frozen=True)
class Size:
    """The size of an environment: publications a second (`rate`), and how long Redis is frozen."""

    subscribers: int
    rate: float
    frozen_seconds: float


SHORT = Size(subscribers=60, rate=50, frozen_seconds=3)
FULL = Size(subscribers=300, rate=200, frozen_seconds=5)


class HistoryLoss(Enum):
    """Whether a fault loses the histories of channels.

    Every subscriber of a lost history must be told of the gap, and no other subscriber may be.
    """

    NEVER = 0
    POSSIBLE = 1
    ALWAYS = 2


@dataclass(frozen=True)
class Fault(Generic[AnyCluster]):
    """A fault, and what is allowed while it lasts.

    `inject` returns when the fault is over; the system may still have to recover from it.
    `detected_by` is one of `DETECTIONS`, or empty for a fault that nothing may detect.
    `detected_within_seconds` is infinite if the design sets no limit.
    At most `ended_connections` may end. If `allows_publishing`, publishers must make progress.
    """

    name: str
    inject: Callable[[FaultEnvironment[AnyCluster]], Awaitable[None]]
    detected_by: str = ""
    detected_within_seconds: float = math.inf
    history_loss: HistoryLoss = HistoryLoss.NEVER
    ended_connections: float = 0
    allows_publishing: bool = False

    def violations(self, seen: Observation) -> list[str]:
        """Sentences about each broken promise, except those that the record counts."""
        violations = []
        if seen.gaps_missing or seen.gaps_unfounded:
            violations.append(f"{seen.gaps_missing} gaps missing, {seen.gaps_unfounded} gaps unfounded")
        if self._has_wrong_loss(seen.histories_lost):
            violations.append(f"{seen.histories_lost} of {len(CHANNELS)} histories were lost")
        if seen.connections_ended > self.ended_connections:
            violations.append(f"{seen.connections_ended} connections ended")
        if seen.detected_seconds is None:
            if self.detected_by:
                violations.append("the fault was not detected")
        elif not self.detected_by:
            violations.append("a fault was detected")
        elif seen.detected_seconds > self.detected_within_seconds:
            violations.append(f"detected after {seen.detected_seconds:.1f} s")
        if self.allows_publishing and seen.published < LEAST_SHARE * seen.rate * seen.lasted_seconds:
            violations.append(f"only {seen.published} publications in {seen.lasted_seconds:.1f} s")
        if not seen.publishing_resumed:
            violations.append("publishing did not resume")
        return violations

    def _has_wrong_loss(self, histories_lost: int) -> bool:
        if self.history_loss is HistoryLoss.NEVER:
            return histories_lost > 0
        return self.history_loss is HistoryLoss.ALWAYS and histories_lost < len(CHANNELS)


@dataclass(frozen=True)
class Observation:
    """What was observed during a fault.

    `gaps_missing` are subscriptions whose history was lost and that were not told of a gap; `gaps_unfounded`
    were told of one although their history was not lost. `detected_seconds` count from the injection;
    `published` are acknowledgements in the `lasted_seconds` of the fault, at a nominal `rate` a second.
    """

    histories_lost: int = 0
    gaps_missing: int = 0
    gaps_unfounded: int = 0
    connections_ended: int = 0
    detected_seconds: float | None = None
    lasted_seconds: float = 0
    published: int = 0
    rate: float = 0
    publishing_resumed: bool = True


@dataclass(frozen=True)
class FaultGroup(Generic[AnyCluster]):
    """Faults of one kind of cluster. The system recovers from the quick ones within seconds."""

    start_cluster: Callable[[Path], AbstractAsyncContextManager[AnyCluster]]
    quick: Sequence[Fault[AnyCluster]]
    slow: Sequence[Fault[AnyCluster]] = ()

    @property
    def faults(self) -> list[Fault[AnyCluster]]:
        """The quick and the slow ones."""
        return [*self.quick, *self.slow]


@dataclass(frozen=True)
class Outcome:
    """The result of one injection of a fault.

    `gaps_expected` are the subscriptions whose history was lost. `detected_seconds` count from the injection,
    `recovered_seconds` from the end of the fault until every subscriber had everything. `remarks` describe
    broken promises.
    """

    name: str
    tally: Tally
    gaps_expected: int
    detected_seconds: float | None
    lasted_seconds: float
    recovered_seconds: float
    remarks: Sequence[str]

    @property
    def is_as_promised(self) -> bool:
        """Whether no promise was broken."""
        return self.tally.is_clean and not self.remarks


class FaultEnvironment(Generic[AnyCluster]):
    """A cluster at work, which faults are injected into.

    The mutable state is `record`, `subscriptions` (the records of all subscribers), the running tasks, the
    times at which connections ended, and the epoch of each channel.
    """

    def __init__(self, cluster: AnyCluster, size: Size, balancer: Balancer, tasks: asyncio.TaskGroup) -> None:
        self.cluster = cluster
        self.size = size
        self.record = Record()
        self.publishers = Publishers(cluster, self.record, CHANNELS, size.rate)
        self.subscriptions: list[SubscriptionRecord] = []
        self._balancer = balancer
        self._tasks = tasks
        self._running: list[asyncio.Task[None]] = []
        self._ends: list[float] = []
        self._epochs: dict[str, str] = {}

    def subscribe(self, kind: Subscribe, channels: Sequence[str]) -> None:
        """Add a subscriber."""
        name = f"{kind.__qualname__} {len(self.subscriptions)}"
        subscriptions = [SubscriptionRecord(self.record, channel, name) for channel in channels]
        self.subscriptions += subscriptions
        self.run(kind(self._balancer.url, subscriptions))

    def record_end(self) -> None:
        """Note that a subscriber's connection was ended by the server or the network."""
        self._ends.append(time.monotonic())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a task until the environment ends. If it fails, the environment fails."""
        self._running.append(self._tasks.create_task(work))

    def end(self) -> None:
        """Stop publishers and subscribers."""
        for task in self._running:
            task.cancel()

    async def run_fault(self, fault: Fault[AnyCluster]) -> Outcome:
        """Inject a fault, wait until the system has recovered from it, and judge."""
        await self.cluster.settle()
        self._balancer.rebalance()  # a node without connections would make its fault harmless
        await self.wait_until_recovered()
        before = self.record.tally.since(Tally())
        for subscription in self.subscriptions:
            subscription.has_gap = False
        answered, injected = self.publishers.answered, time.monotonic()
        await fault.inject(self)
        answered, over = self.publishers.answered - answered, time.monotonic()
        await self.wait_until_recovered()
        resumed = await self.publishers.make_progress()
        recovered = time.monotonic()
        lost = await self.audit()
        detected = self._first_detection(fault.detected_by, injected)
        seen = Observation(
            histories_lost=len(lost),
            gaps_missing=sum(each.channel in lost and not each.has_gap for each in self.subscriptions),
            gaps_unfounded=sum(each.channel not in lost and each.has_gap for each in self.subscriptions),
            connections_ended=sum(at >= injected for at in self._ends),
            detected_seconds=None if detected is None else detected - injected,
            lasted_seconds=over - injected,
            published=answered,
            rate=self.size.rate,
            publishing_resumed=resumed,
        )
        remarks = [*self.record.remarks, *fault.violations(seen)]
        self.record.remarks.clear()
        return Outcome(
            fault.name,
            self.record.tally.since(before),
            sum(each.channel in lost for each in self.subscriptions),
            seen.detected_seconds,
            seen.lasted_seconds,
            recovered - over,
            remarks,
        )

    async def wait_until_recovered(self) -> None:
        """Wait until all nodes are ready, and every subscriber has everything published before this call."""
        await self.wait_until_received(self.subscriptions, await self.publish_to_each(CHANNELS))
        await self.cluster.wait_until_ready()

    async def publish_to_each(self, channels: Sequence[str]) -> dict[str, Position]:
        """Publish once to each channel. A subscriber that is at these positions has everything."""
        positions = await asyncio.gather(*(self.publishers.publish(channel) for channel in channels))
        return dict(zip(channels, positions, strict=True))

    async def wait_until_received(
        self, subscriptions: Sequence[SubscriptionRecord], goals: dict[str, Position]
    ) -> None:
        """Wait until subscriptions reach the goals. Publications that do not arrive in time count as lost."""
        count = asyncio.Semaphore(0)
        for subscription in subscriptions:
            subscription.call_when_reached(goals[subscription.channel], count.release)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTED):
                for _ in subscriptions:
                    await count.acquire()
        for subscription in subscriptions:
            subscription.count_missing()

    async def audit(self) -> set[str]:
        """Compare acknowledged publications with the histories.

        Returns the channels whose history was lost: its epoch has changed.
        """
        owed = {channel: self.record.take_acknowledged(channel) for channel in CHANNELS}
        histories = await asyncio.gather(*(self.publishers.history(*each) for each in owed.items()))
        lost = set()
        for (channel, positions), history in zip(owed.items(), histories, strict=True):
            epoch = history.position.epoch
            self.record.audit(channel, positions, epoch, history.publications)
            if self._epochs.setdefault(channel, epoch) != epoch:
                self._epochs[channel] = epoch
                lost.add(channel)
        return lost

    def _first_detection(self, detected_by: str, since: float) -> float | None:
        """The time of the first matching detection. Without `detected_by`, each of `DETECTIONS` matches."""
        lines = [*self.cluster.stderr_lines(), *((at, CONNECTION_ENDED) for at in self._ends)]
        signs = (detected_by,) if detected_by else DETECTIONS
        return min(
            (at for at, line in lines if at >= since and any(sign in line for sign in signs)), default=None
        )


def _kinds(environment: FaultEnvironment[AnyCluster]) -> Sequence[Subscribe]:
    on_end = environment.record_end
    return (
        by_client,
        by_event_stream,
        BareWebSocket(on_end).subscribe,
        BareEventStream(on_end).subscribe,
        BareEmulatedConnection(HTTP_STREAM_PATH, on_end).subscribe,
        BareEmulatedConnection(SSE_PATH, on_end).subscribe,
    )


def _channels_of(number: int) -> list[str]:
    """One channel, the same for six subscribers of different kinds. Every seventh subscriber has two."""
    first = number // 6 % len(CHANNELS)
    return [CHANNELS[first], CHANNELS[first - 3]] if number % 7 == 0 else [CHANNELS[first]]


@contextlib.asynccontextmanager
async def open_environment(
    group: FaultGroup[AnyCluster], directory: Path, size: Size
) -> AsyncIterator[FaultEnvironment[AnyCluster]]:
    """An environment with all nodes ready, all subscribers subscribed, and publishers at work."""
    async with (
        group.start_cluster(directory) as cluster,
        run_balancer(cluster.ports) as balancer,
        asyncio.TaskGroup() as tasks,
    ):
        environment = FaultEnvironment(cluster, size, balancer, tasks)
        try:
            environment.run(cluster.watch())
            await cluster.wait_until_ready()  # then every node gets subscribers of every channel
            for number in range(size.subscribers):
                environment.subscribe(_kinds(environment)[number % 6], _channels_of(number))
            await environment.wait_until_recovered()
            await environment.audit()
            environment.run(environment.publishers.run())
            yield environment
        finally:
            environment.end()
