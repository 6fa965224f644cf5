"""Thousands of sessions over three nodes, while nodes and Redis fail: what lifecycle events tell of them.

    clients --connect, subscribe, leave--> nodes --events--> Redis <--EventLog-- collector --> Audit

Every client notes what it saw. At the end the audit compares both.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from tests.faults.cluster import NAMESPACE, Cluster, NodeProcess, config_with_engine, make_folder, run_cluster
from tests.faults.fault_environment import LATE_SECONDS
from tests.faults.lifecycle_audit import GRACE_SECONDS, LEASE_SECONDS, Audit, ClientSession
from tests.faults.mass_reconnect import Result
from tests.faults.standalone import DURABLE
from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy, blackhole_running
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.raw_connection import HANDSHAKE, Op, close_frame, commands, frame
from tests.support.tcp import HOST
from tests.support.timing import SOON, STARTED, TICK, progress_timeout
from tocsin_load.limits import raise_file_limit
from tocsin_server.config.event_options import RecordedType
from tocsin_server.config.loading import Settings
from tocsin_server.core.lifecycle import EventBatch, WriteOutcome
from tocsin_server.engine.event_log import ClaimLost, EventLog
from tocsin_server.engine.factory import create_engine, digest_of_histories
from tocsin_server.errors import EngineError

TYPES = get_args(RecordedType)
CHANNELS = [f"{NAMESPACE}:{number}" for number in range(200)]
CHANNELS_AT_MOST = 3
FROZEN_SECONDS = 8.0
"""Longer than a lease: the node is taken for dead, and comes back."""
READ_AT_ONCE = 1000
SUBSCRIBER = "collector"
UNWRITTEN_SECONDS = 2.0
"""A killed node may not have written what happened in so short a time before, on a busy machine.

It writes a batch 10 ms after the one before.
"""


@dataclass(frozen=True)
class Plan:
    """How many sessions there are, how many of them at once, and how long one lasts on average."""

    sessions: int
    at_once: int
    seconds: float


FULL = Plan(sessions=10_000, at_once=1200, seconds=8.0)
SHORT = Plan(sessions=200, at_once=100, seconds=0.5)


class LifecycleCluster(Cluster):
    """Three nodes that record all lifecycle events. The last one reaches Redis through a proxy."""

    def __init__(self, directory: Path, redis: RedisServer, proxy: BlackholeProxy) -> None:
        self.redis = redis
        self.proxy = proxy
        urls = [redis.url, redis.url, proxy.url]
        super().__init__(
            [
                NodeProcess(
                    directory / f"node-{at}", {**config_with_engine(url), "events": {"types": list(TYPES)}}
                )
                for at, url in enumerate(urls)
            ]
        )


@contextlib.asynccontextmanager
async def lifecycle_cluster(directory: Path) -> AsyncIterator[LifecycleCluster]:
    """Start Redis, then the nodes."""
    raise_file_limit()
    with redis_running(make_folder(directory, "redis"), *DURABLE) as redis:
        async with (
            blackhole_running(redis.port) as proxy,
            run_cluster(LifecycleCluster(directory, redis, proxy)) as cluster,
        ):
            yield cluster


# -------------------------------------------------------------------------------------------------- clients


class Clients:
    """Clients that connect, subscribe and leave, one after the other in many places.

    The mutable state is how many sessions are still to begin, and the sessions.
    """

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self._cluster = cluster
        self._plan = plan
        self._left = plan.sessions
        self.sessions: list[ClientSession] = []

    async def run(self) -> None:
        """Run all sessions."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._plan.at_once):
                tasks.create_task(self._run_place())

    async def _run_place(self) -> None:
        await asyncio.sleep(random.uniform(0, self._plan.seconds))
        while self._left > 0:
            self._left -= 1
            with contextlib.suppress(OSError, EOFError, TimeoutError, IndexError):
                await self._run_session()
                continue
            self._left += 1  # it did not connect
            await asyncio.sleep(0.1)

    async def _run_session(self) -> None:
        """Run one session. Raises if it does not come to a connect reply."""
        port = random.choice(list(self._cluster.ports()))
        async with asyncio.timeout(SOON):
            reader, writer = await asyncio.open_connection(HOST, port)
        try:
            async with asyncio.timeout(SOON):
                writer.write(HANDSHAKE)
                await reader.readuntil(b"\r\n\r\n")
            await self._speak(reader, writer)
        finally:
            writer.transport.abort()

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channels = random.sample(CHANNELS, random.randint(0, CHANNELS_AT_MOST))
        subscribes = [{"id": id_, "subscribe": {"channel": one}} for id_, one in enumerate(channels, 2)]
        if writer.transport.is_closing():
            raise EOFError
        writer.write(commands({"id": 1, "connect": {}}, *subscribes))
        async with asyncio.timeout(STARTED):
            op, payload = await _read_frame(reader)
        if op is Op.CLOSE:
            raise EOFError  # the node drains
        client = json.loads(payload.splitlines()[0])["connect"]["client"]
        session = ClientSession(client, began_at=time.monotonic())
        self.sessions.append(session)
        _note_subscribed(session, channels, payload)
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            lasts = min(random.expovariate(1 / self._plan.seconds), 5 * self._plan.seconds)
            async with asyncio.timeout(lasts):
                await self._stay(reader, writer, session, channels)
        await self._leave(writer, channels)
        session.ended_at = time.monotonic()

    async def _leave(self, writer: asyncio.StreamWriter, channels: Sequence[str]) -> None:
        """Leave with a close frame, after an unsubscribe command, or without a word."""
        if writer.transport.is_closing():
            return
        way = random.randrange(3)
        if way and channels:
            writer.write(commands({"id": 90, "unsubscribe": {"channel": channels[0]}}))
        if way == 1:
            writer.write(close_frame())
        with contextlib.suppress(OSError):
            async with asyncio.timeout(0.1):
                await writer.drain()

    async def _stay(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        session: ClientSession,
        channels: Sequence[str],
    ) -> None:
        """Read replies, and answer pings, until the connection ends."""
        while True:
            op, payload = await _read_frame(reader)
            if op is Op.CLOSE:
                return
            if payload == b"{}":
                writer.write(frame("{}"))
            _note_subscribed(session, channels, payload)


def _note_subscribed(session: ClientSession, channels: Sequence[str], payload: bytes) -> None:
    """Note the channels of the subscribe replies in a message."""
    for message in map(json.loads, payload.splitlines()):
        if "subscribe" in message:
            session.channels.add(channels[message["id"] - 2])


async def _read_frame(reader: asyncio.StreamReader) -> tuple[Op, bytes]:
    head = await reader.readexactly(2)
    size = head[1] & 0x7F
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2))
    elif size == 127:
        size = int.from_bytes(await reader.readexactly(8))
    return Op(head[0] & 0x0F), await reader.readexactly(size)


# ------------------------------------------------------------------------------------------------ collector


class Collector:
    """Reads the events as a subscriber does, from an engine of its own."""

    def __init__(self, url: str, audit: Audit) -> None:
        settings = Settings.model_validate({**config_with_engine(url), "events": {"types": TYPES}})
        digest = digest_of_histories(settings)
        self._engine = create_engine(settings.engine, digest, settings.events)
        self._audit = audit
        self._batch = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Collect until the block ends."""
        await self._engine.start(RecordingHandler(SUBSCRIBER))
        try:
            async with asyncio.TaskGroup() as tasks:
                collecting = tasks.create_task(self._collect())
                yield
                collecting.cancel()
        finally:
            await self._engine.stop()

    async def _collect(self) -> None:
        log, seen, is_open = self._engine.event_log, 0, False
        while True:
            try:
                if not is_open:
                    await log.open(SUBSCRIBER)
                    self._batch, is_open = 0, True
                for part in range(log.parts):
                    await self._read(log, part)
                is_open = await self._renew(log)
                seen = await log.wait(seen, 0.5)
            except ClaimLost:
                continue
            except EngineError:
                await asyncio.sleep(0.1)

    async def _renew(self, log: EventLog) -> bool:
        """Find out whether the log still knows this reader."""
        if await log.write(EventBatch(self._batch + 1, (), {})) is not WriteOutcome.WRITTEN:
            return False
        self._batch += 1
        return True

    async def _read(self, log: EventLog, part: int) -> None:
        if not await log.claim(SUBSCRIBER, part):
            return
        while stored := await log.read(SUBSCRIBER, part, READ_AT_ONCE):
            now = time.monotonic()
            for one in stored:
                self._audit.take(one.event, now)
            await log.acknowledge(SUBSCRIBER, part, [one.entry for one in stored])


# --------------------------------------------------------------------------------------------------- faults

Fault = Callable[["LifecycleRun"], Awaitable[None]]


async def kill(run: LifecycleRun) -> None:
    """SIGKILL of a node, which starts again."""
    node = random.choice(run.cluster.nodes)
    run.kills.append(time.monotonic())
    await node.kill()
    await node.start()


async def drain(run: LifecycleRun) -> None:
    """SIGTERM of a node, which starts again."""
    node = random.choice(run.cluster.nodes)
    await node.stop()
    await node.start()


async def deafen(run: LifecycleRun) -> None:
    """The last node's pub/sub connection is silent until the node replaces it."""
    run.cluster.proxy.drop_pubsub()
    await asyncio.sleep(2.0)


async def freeze(run: LifecycleRun) -> None:
    """A node is frozen (SIGSTOP) for longer than a lease."""
    node = random.choice(run.cluster.nodes[:2])
    assert node.server is not None
    process = node.server.process
    async with run.outage():
        process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_SECONDS)
        process.send_signal(signal.SIGCONT)


async def partition(run: LifecycleRun) -> None:
    """The last node cannot reach Redis for longer than a lease."""
    async with run.outage():
        run.cluster.proxy.drop_all()
        await asyncio.sleep(FROZEN_SECONDS)
        run.cluster.proxy.pass_all()


async def restart_redis(run: LifecycleRun) -> None:
    """Redis is killed, and starts with its data."""
    async with run.outage():
        await asyncio.to_thread(run.cluster.redis.stop)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(run.cluster.redis.start)


FAULTS: Sequence[Fault] = (kill, drain, deafen, freeze, partition, restart_redis)


@dataclass
class LifecycleRun:
    """One run. `outages` are times in which the store was away for a node: begin and end.

    `kills` are the times at which nodes were killed. All times are monotonic.
    """

    cluster: LifecycleCluster
    plan: Plan
    audit: Audit = field(default_factory=Audit)
    outages: list[tuple[float, float]] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Note an outage."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.outages.append((begin, time.monotonic()))

    def due_at(self, ended_at: float) -> float:
        """When the end of a session must be told that ended then."""
        allowed = LEASE_SECONDS + GRACE_SECONDS + LATE_SECONDS
        due = ended_at + allowed
        for begin, end in sorted(self.outages):
            if begin <= due and ended_at <= end:
                due = max(due, end + allowed)
        return due

    async def execute(self, faults: Sequence[Fault]) -> Result:
        """Run all sessions, and inject the faults in turn for as long as they run, each at least once."""
        clients = Clients(self.cluster, self.plan)
        async with Collector(self.cluster.redis.url, self.audit).running():
            working = asyncio.create_task(clients.run())
            injected = await self._inject(faults, working)
            await working
            with contextlib.suppress(TimeoutError):  # what is missing is in the result
                async with progress_timeout(lambda: self.audit.events, STARTED):
                    while not self._is_complete(clients):  # noqa: ASYNC110 - the collector runs meanwhile
                        await asyncio.sleep(TICK)
        return self._result(clients.sessions, injected)

    def _is_complete(self, clients: Clients) -> bool:
        for session in clients.sessions:
            session.is_disturbed = any(
                session.began_at - UNWRITTEN_SECONDS < end and session.ended_at + UNWRITTEN_SECONDS > begin
                for begin, end in self.outages
            )
            session.is_unwritten = any(
                session.began_at - UNWRITTEN_SECONDS < at < session.began_at + UNWRITTEN_SECONDS
                for at in self.kills
            )
        return not self.audit.live_count and all(map(self.audit.has_ended, clients.sessions))

    async def _inject(self, faults: Sequence[Fault], working: asyncio.Task[None]) -> dict[str, int]:
        counts: dict[str, int] = {}
        await asyncio.sleep(self.plan.seconds)
        while not working.done() or len(counts) < len(faults):
            for fault in random.sample(faults, len(faults)):
                if working.done() and fault.__name__ in counts:
                    break
                await fault(self)
                counts[fault.__name__] = counts.get(fault.__name__, 0) + 1
                await asyncio.sleep(self.plan.seconds / 4)
        return counts

    def _result(self, sessions: Sequence[ClientSession], injected: dict[str, int]) -> Result:
        audit = self.audit
        delays = sorted(audit.compare(one, self.due_at(one.ended_at)) for one in sessions)
        audit.finish()
        if audit.state_lost:
            audit.violations.append("state_lost was told, although no data was lost")
        faults = ", ".join(f"{name} {count} times" for name, count in injected.items())
        return Result(
            f"{len(sessions):,} sessions, and lifecycle events",
            [
                f"faults: {faults}",
                f"{audit.events:,} events, {audit.repeated:,} of them repeated with the same id",
                f"{audit.reconnected:,} sessions were told again after their node had been taken for dead",
                f"{audit.incomplete:,} sessions ended there before all their subscriptions were told",
                f"{audit.unwritten:,} sessions began when their node was killed, and are not told",
                (
                    f"ends told after p50 {delays[len(delays) // 2]:.2f} s, "
                    f"p99 {delays[len(delays) * 99 // 100]:.1f} s, at most {delays[-1]:.1f} s"
                ),
            ],
            [*audit.violations, *([f"{audit.violation_count} violations"] if audit.violation_count else [])],
        )
