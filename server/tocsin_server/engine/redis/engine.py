"""The Redis engine, whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from random import Random

from tocsin_server.engine.engine import EngineHandler, EngineHealth
from tocsin_server.engine.redis.broker import RedisBroker
from tocsin_server.engine.redis.clock import SharedClock
from tocsin_server.engine.redis.cluster.router import Shards
from tocsin_server.engine.redis.connections.address import Address
from tocsin_server.engine.redis.connections.connection import reason
from tocsin_server.engine.redis.deployment import StraightWay, Way
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.lease import Lease
from tocsin_server.engine.redis.membership.reaper import Reaper
from tocsin_server.engine.redis.nodes import RedisNodeRegistry
from tocsin_server.engine.redis.presence import RedisPresenceStore
from tocsin_server.engine.redis.supervisor import Keeper
from tocsin_server.errors import EngineError

EPOCH_BITS = 48
"""Two logs share an epoch by chance once in 10^14. One is made for each publish, so it has to be quick."""

_AS_LETTERS = str.maketrans("0123456789", "ghijklmnop")

START_SECONDS = 5.0
"""For hearing itself over a Redis that answers."""

STOP_SECONDS = 1.0
"""For taking leave of a Redis that may be gone."""


class RedisEngine:
    """For any number of nodes over one Redis, alone or behind Sentinels, or over a Redis Cluster.

    Two connections per node, or per node and master of the cluster.

    What it cannot promise: Redis acknowledges before its replicas have a write and, unless told otherwise,
    before its disk has. What a failover or a crash loses this way is told to clients (see RedisBroker), not
    brought back.
    """

    def __init__(self, address: Address, prefix: str, *, random: Random | None = None) -> None:
        self._random = random or Random()  # noqa: S311 - seeded by the system; makes names unlike, not secret
        self._keeper = Keeper()
        kind = Shards if address.is_cluster else StraightWay
        self._way: Way = kind(address, prefix, self._keeper, self._random, self._resume)
        keys, calls, ears = Keys(prefix), self._way.calls, self._way.ears
        self._keys = keys
        self._clock = SharedClock(keys, calls)
        self._broker = RedisBroker(keys, calls, ears, self._clock, self._make_epoch)
        self._presence = RedisPresenceStore(keys, calls)
        self._nodes = RedisNodeRegistry(keys, calls, ears)
        self._lease: Lease | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_running = False

    @property
    def broker(self) -> RedisBroker:
        """Logs and announcements."""
        return self._broker

    @property
    def presence(self) -> RedisPresenceStore:
        """Who is where."""
        return self._presence

    @property
    def nodes(self) -> RedisNodeRegistry:
        """The other nodes."""
        return self._nodes

    @property
    def unready_reason(self) -> str:
        """Why this node can at present not publish or hear, as a sentence; empty if it can."""
        if not self._is_running:
            return "The engine is not running."
        return (
            self._keeper.mistake or self._way.unready_reason or (self._lease.trouble if self._lease else "")
        )

    @property
    def lag_seconds(self) -> float:
        """How long the last announcement of this node's own canary was under way; the slowest of several."""
        return max((shard.canary.lag_seconds for shard in self._way.shards), default=0.0)

    @property
    def vitals(self) -> EngineHealth:
        """Of its pipelines, links, canaries and lease."""
        shards = self._way.shards
        return EngineHealth(
            is_deaf=any(shard.link.trouble for shard in shards),
            silence_seconds=max((shard.canary.silence_seconds for shard in shards), default=0.0),
            waiting_bytes=self._way.waiting_bytes,
            links=self._way.links,
            reaped_nodes=self._lease.reaped_nodes if self._lease else 0,
        )

    @property
    def may_lose_announcements(self) -> bool:
        """Always: Redis' pub/sub is fire and forget."""
        return True

    async def start(self, resident: EngineHandler) -> None:
        """Reach Redis, prove the links, and register this node. Raises EngineError if any of it fails."""
        await self._way.examine()
        calls = self._way.calls
        reaper = Reaper(resident.uid, self._keys, calls)
        self._lease = Lease(resident.uid, self._keys, calls, self._presence, reaper.reap, self._random)
        self._broker.start(resident)
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(resident, self._lease, started))
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
        await self._way.close()

    async def _run(self, resident: EngineHandler, lease: Lease, started: asyncio.Future[None]) -> None:
        """Own every task."""
        keep = self._keeper.keep
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep("way to Redis", lambda: self._way.run(resident.uid)))
            try:
                async with asyncio.timeout(START_SECONDS):
                    await self._way.opened()
                    tasks.create_task(keep("clock", self._clock.run))
                    await self._nodes.start(resident)
                    await lease.register()
                    await self._way.proven()
            except (EngineError, TimeoutError) as error:
                started.set_exception(EngineError(self._way.unready_reason or reason(error)))
            else:
                tasks.create_task(keep("lease", lambda: lease.run(tasks)))
                self._is_running = True
                started.set_result(None)

    def _resume(self, names: Sequence[bytes]) -> None:
        self._broker.resume(names)

    def _make_epoch(self) -> str:
        return f"{self._random.getrandbits(EPOCH_BITS):012x}".translate(_AS_LETTERS)
