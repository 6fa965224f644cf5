"""The Redis engine, whole."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import NoReturn

import structlog
from redis.asyncio.connection import AbstractConnection

from tocsin_server.cluster.engine import Resident, Vitals
from tocsin_server.cluster.redis.address import CONNECT_SECONDS, FAILURES, Address, Dialler, hang_up
from tocsin_server.cluster.redis.backoff import Backoff
from tocsin_server.cluster.redis.broker import RedisBroker
from tocsin_server.cluster.redis.canary import Canary
from tocsin_server.cluster.redis.clock import SharedClock
from tocsin_server.cluster.redis.keys import Keys
from tocsin_server.cluster.redis.lease import Lease
from tocsin_server.cluster.redis.link import Link
from tocsin_server.cluster.redis.nodes import RedisNodes
from tocsin_server.cluster.redis.pipeline import Pipeline, reason
from tocsin_server.cluster.redis.presence import RedisPresence
from tocsin_server.cluster.redis.reaper import Reaper
from tocsin_server.errors import EngineError

EPOCH_LETTERS = 8
"""As in memory: two logs share an epoch by chance once in 10^13."""

OLDEST = (6, 2)
"""Redis 6.2 knows exclusive ends of ranges, which reading a log needs. Nothing here needs 7."""

START_SECONDS = 5.0
"""For hearing itself over a Redis that answers."""

PAUSE_SECONDS = 1.0
"""Before a part that died is run again."""

STOP_SECONDS = 1.0
"""For taking leave of a Redis that may be gone."""

log = structlog.get_logger()


class RedisEngine:
    """For any number of nodes over one Redis, alone or behind Sentinels. Two connections per node.

    What it cannot promise: Redis acknowledges before its replicas have a write and, unless told otherwise,
    before its disk has. What a failover or a crash loses this way is told to clients (see RedisBroker), not
    brought back.
    """

    def __init__(self, address: Address, prefix: str, *, random: Random | None = None) -> None:
        self._random = random or Random()  # noqa: S311 - seeded by the system; makes names unlike, not secret
        self._dialler = Dialler(address, prefix)
        self._keys = Keys(prefix)
        self._pipeline = Pipeline(self._dialler, Backoff(self._random))
        self._link = Link(self._dialler, Backoff(self._random), self._resume)
        self._clock = SharedClock(self._keys, self._pipeline)
        self._broker = RedisBroker(self._keys, self._pipeline, self._link, self._clock, self._make_epoch)
        self._presence = RedisPresence(self._keys, self._pipeline)
        self._nodes = RedisNodes(self._keys, self._pipeline, self._link)
        self._lease: Lease | None = None
        self._canary: Canary | None = None
        self._reaper: Reaper | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_running = False
        self._mistake = ""

    @property
    def broker(self) -> RedisBroker:
        """Logs and announcements."""
        return self._broker

    @property
    def presence(self) -> RedisPresence:
        """Who is where."""
        return self._presence

    @property
    def nodes(self) -> RedisNodes:
        """The other nodes."""
        return self._nodes

    @property
    def trouble(self) -> str:
        """Why this node can at present not publish or hear, as a sentence; empty if it can."""
        if not self._is_running:
            return "The engine is not running."
        return self._mistake or self._trouble_of_redis

    @property
    def _trouble_of_redis(self) -> str:
        return self._pipeline.trouble or self._link.trouble

    @property
    def lag_seconds(self) -> float:
        """How long the last announcement of this node's own canary was under way."""
        return self._canary.lag_seconds if self._canary else 0.0

    @property
    def vitals(self) -> Vitals:
        """Of its pipeline, link, canary and reaper."""
        return Vitals(
            is_deaf=bool(self._link.trouble),
            silence_seconds=self._canary.silence_seconds if self._canary else 0.0,
            waiting_bytes=self._pipeline.waiting_bytes,
            links=self._link.connections,
            reaped_nodes=self._reaper.reaped_nodes if self._reaper else 0,
        )

    @property
    def may_lose_announcements(self) -> bool:
        """Always: Redis' pub/sub is fire and forget."""
        return True

    async def start(self, resident: Resident) -> None:
        """Reach Redis, prove the link, and register this node. Raises EngineError if any of it fails."""
        await self._examine()
        self._canary = Canary(self._keys.canary(resident.uid), self._pipeline, self._link)
        self._reaper = Reaper(resident.uid, self._keys, self._pipeline)
        self._lease = Lease(
            resident.uid, self._keys, self._pipeline, self._presence, self._reaper.reap, self._random
        )
        self._broker.start(resident)
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(resident, self._lease, self._canary, started))
        try:
            await started
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Deregister, and let go of Redis. Idempotent."""
        if self._is_running and self._lease is not None:
            with suppress(EngineError, TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await self._lease.release()
        self._is_running = False
        self._nodes.stop()
        self._broker.stop()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._dialler.close()

    async def _run(
        self, resident: Resident, lease: Lease, canary: Canary, started: asyncio.Future[None]
    ) -> None:
        """Own every task."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep("pipeline", self._pipeline.run))
            tasks.create_task(self._keep("link", self._link.run))
            await asyncio.sleep(0)  # so that both take calls
            tasks.create_task(self._keep("canary", canary.run))
            tasks.create_task(self._keep("clock", self._clock.run))
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._nodes.start(resident)
                    await lease.register()
                    await self._link.proven.wait()
            except (EngineError, TimeoutError) as error:
                started.set_exception(EngineError(self._trouble_of_redis or reason(error)))
            else:
                tasks.create_task(self._keep("lease", lambda: lease.run(tasks)))
                self._is_running = True
                started.set_result(None)

    async def _keep(self, name: str, run: Callable[[], Awaitable[NoReturn]]) -> NoReturn:
        """Run a part for ever: one that dies of a mistake is news, and is run again."""
        while True:
            try:
                await run()
            except Exception:
                log.exception("a part of the engine died, and is run again", part=name)
                self._mistake = f"The engine's {name} died of a mistake, which was logged."
            await asyncio.sleep(PAUSE_SECONDS)
            self._mistake = ""

    async def _examine(self) -> None:
        """See to it that there is a Redis, and that it is not too old. At once, without a second attempt."""
        connection: AbstractConnection | None = None
        try:
            connection = await self._dialler.connect()
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.send_command("INFO", "server")
                answer = await connection.read_response()
        except FAILURES as error:
            raise EngineError(f"Redis at {self._dialler.name} cannot be used: {reason(error)}") from None
        finally:
            if connection is not None:
                await hang_up(connection)
        facts = dict(line.partition(":")[::2] for line in bytes(answer).decode().splitlines())
        version = facts.get("redis_version", "0")
        if tuple(map(int, version.split(".")[:2])) < OLDEST:
            raise EngineError(f"Redis at {self._dialler.name} is {version}, but must be at least 6.2")

    def _resume(self, names: Sequence[bytes]) -> None:
        self._broker.resume(names)

    def _make_epoch(self) -> str:
        return "".join(self._random.choices(string.ascii_letters, k=EPOCH_LETTERS))
