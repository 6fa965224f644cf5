"""Thousands of sessions over three nodes, while nodes and Redis fail: what lifecycle events tell of them.

    clients --connect, subscribe, leave--> nodes --events--> Redis <--EventLog-- collector --> Audit

Every client notes what it saw. At the end the audit compares both. Between faults the run waits for what must
happen, not for a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import get_args

from tests.faults.cluster import NodeProcess, config_with_engine, make_folder, run_cluster
from tests.faults.fault_environment import REDIS_DISCONNECTED
from tests.faults.lifecycle_audit import Audit, Disturbance
from tests.faults.lifecycle_clients import Clients, Plan
from tests.faults.lifecycle_collector import Collector
from tests.faults.mass_reconnect import Result
from tests.faults.standalone import DURABLE, StandaloneCluster
from tests.server.engine.redis.blackhole_proxy import ProxyProcess
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.timing import STARTED, TICK, progress_timeout
from tocsin_load.limits import raise_file_limit
from tocsin_server.config.event_options import RecordedType

TYPES = get_args(RecordedType)
FULL = Plan(sessions=10_000, at_once=1200, seconds=5.0, rounds=3)
SHORT = Plan(sessions=200, at_once=100, seconds=0.5, rounds=1)


class LifecycleCluster(StandaloneCluster):
    """Three nodes that record all lifecycle events. The last one reaches Redis through a proxy."""

    def __init__(self, directory: Path, redis: RedisServer, proxy: ProxyProcess) -> None:
        super().__init__(directory, redis, proxy)
        self.nodes: list[NodeProcess] = [
            NodeProcess(
                directory / f"recording-{at}", {**config_with_engine(url), "events": {"types": list(TYPES)}}
            )
            for at, url in enumerate((redis.url, redis.url, proxy.url))
        ]

    def processes(self) -> list[int]:
        """The process ids of the running nodes."""
        return [node.server.process.pid for node in self.nodes if node.server is not None]

    def disconnected_since(self, since: float) -> int:
        """How many running nodes have found since that monotonic second that Redis is away."""
        return sum(
            any(REDIS_DISCONNECTED in line for at, line in node.server.stderr_lines if at >= since)
            for node in self.nodes
            if node.server is not None
        )


@contextlib.asynccontextmanager
async def lifecycle_cluster(directory: Path) -> AsyncIterator[LifecycleCluster]:
    """Start Redis, then the nodes."""
    raise_file_limit()
    with redis_running(make_folder(directory, "redis"), *DURABLE) as redis:
        async with (
            ProxyProcess(redis.port) as proxy,
            run_cluster(LifecycleCluster(directory, redis, proxy)) as cluster,
        ):
            yield cluster


Fault = Callable[["LifecycleRun"], Awaitable[None]]


class LifecycleRun:
    """One run. The mutable state is its clients, its audit, and how often each fault was injected."""

    def __init__(self, cluster: LifecycleCluster, plan: Plan, audit: Audit | None = None) -> None:
        self.cluster = cluster
        self.audit = audit or Audit()
        self.clients = Clients(cluster, plan, self.audit.has_ended)
        self._plan = plan
        self._counts: Counter[str] = Counter()

    async def execute(self, faults: Sequence[Fault]) -> Result:
        """Run sessions, and inject each fault once a round, until there were enough of both."""
        async with Collector(self.cluster.redis.url, self.audit).running(), asyncio.TaskGroup() as tasks:
            tasks.create_task(self.clients.run())
            await wait_until_none(lambda: self._plan.at_once - len(self.clients.sessions), "to begin")
            for _ in range(self._plan.rounds):
                for fault in random.sample(faults, len(faults)):
                    await fault(self)
                    self._counts[fault.__name__] += 1
                    await self._until_told_of_each_node()
                    await self._until_ends_are_told()
            await wait_until_none(lambda: self._plan.sessions - len(self.clients.sessions), "to begin")
            self.clients.finish()
            await wait_until_none(lambda: len(self.clients.open), "to end")
            with contextlib.suppress(AssertionError):  # what is missing is in the result
                await self._until_ends_are_told()
                await wait_until_none(lambda: self.audit.live_count, "to be told to their end")
        return self._result()

    @contextlib.contextmanager
    def disturbance(self, name: str, nodes: Iterable[int]) -> Iterator[Disturbance]:
        """Note that these nodes cannot write events, until the block ends."""
        noted = Disturbance(name, frozenset(nodes), time.time())
        self.audit.disturbances.append(noted)
        try:
            yield noted
        finally:
            noted.ended_at = time.time()

    def note_written(self, kill: Disturbance) -> None:
        """Note up to when a killed node has written sessions: it may be busy, and behind with them."""
        told = [
            one.began_at
            for one in self.clients.sessions
            if one.process in kill.nodes and self.audit.has_told(one.client)
        ]
        kill.began_at = min(kill.began_at, max(told, default=kill.began_at))

    async def until_taken_for_dead(self, process: int) -> None:
        """Wait until all sessions that a node has now were told to have ended."""
        clients = [one.client for one in self.clients.open.values() if one.process == process]
        await wait_until_none(lambda: sum(map(self.audit.is_live, clients)), "of a dead node to be told")

    async def until_more_ended(self, count: int) -> None:
        """Wait until so many more sessions have ended."""
        due = self.clients.ended_count + count
        await wait_until_none(lambda: due - self.clients.ended_count, "to end")

    async def _until_told_of_each_node(self) -> None:
        """Wait until every node has told of a session that began after this call."""
        now = time.time()

        def silent() -> int:
            speaking = {
                one.process
                for one in self.clients.open.values()
                if one.began_at > now and self.audit.has_told(one.client)
            }
            return len(set(self.cluster.processes()) - speaking)

        await wait_until_none(silent, "of each node to be told")

    async def _until_ends_are_told(self) -> None:
        """Wait until the end of each session that has ended by now is told."""
        left = [one for one in self.clients.sessions if one.ended_at]

        def remaining() -> int:
            left[:] = [one for one in left if not self.audit.has_ended(one)]
            return len(left)

        await wait_until_none(remaining, "to be told to their end")

    def _result(self) -> Result:
        audit = self.audit
        delays: dict[str, list[float]] = defaultdict(list)
        for one in audit.disturbances:
            if one.killed_at:
                self.note_written(one)
        for session in self.clients.sessions:
            fault, seconds = audit.compare(session)
            delays[fault].append(seconds)
        audit.finish()
        if audit.state_lost:
            audit.violations.append("state_lost was told, although no data was lost")
        faults = ", ".join(f"{name} {count} times" for name, count in self._counts.items())
        everything = sorted(second for seconds in delays.values() for second in seconds)
        return Result(
            f"{len(self.clients.sessions):,} sessions, and lifecycle events",
            [
                f"faults: {faults}",
                f"{audit.events:,} events, {audit.repeated:,} of them repeated with the same id",
                f"{audit.reconnected:,} sessions were told again after their node had been taken for dead",
                f"{audit.incomplete:,} sessions ended there before all their subscriptions were told",
                f"{audit.unwritten:,} sessions began when their node was killed, and are not told",
                f"ends told after {_figures(everything)}",
                *(
                    f"  {fault or 'no fault'}, {len(seconds):,} sessions: {_figures(sorted(seconds))}"
                    for fault, seconds in sorted(delays.items())
                ),
            ],
            [*audit.violations, *([f"{audit.violation_count} violations"] if audit.violation_count else [])],
        )


def _figures(seconds: Sequence[float]) -> str:
    half, most = seconds[len(seconds) // 2], seconds[len(seconds) * 99 // 100]
    return f"p50 {half:.2f} s, p99 {most:.1f} s, at most {seconds[-1]:.1f} s"


async def wait_until_none(left: Callable[[], int], what: str) -> None:
    """Wait until `left()` is 0 or less. Raises AssertionError if it does not change for too long."""
    try:
        async with progress_timeout(left, STARTED):
            while left() > 0:  # noqa: ASYNC110 - clients and the collector run meanwhile
                await asyncio.sleep(TICK)
    except TimeoutError:
        raise AssertionError(f"{left()} sessions are left {what}") from None
