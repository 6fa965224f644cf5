"""A Redis Cluster of three masters, each with a replica: the master of a slot fails over, planned and not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults.cluster import Cluster, Member, engine, folder, started
from tests.faults.fault_environment import (
    CHANNELS,
    LATE_SECONDS,
    LINK_BROKEN,
    MASTER_CHANGED,
    Fault,
    Logs,
    Setting,
    Stage,
)
from tests.faults.standalone import EVERYTHING
from tests.support.redis_cluster import RedisCluster, cluster_running, until


class Slotted(Cluster):
    """Its members know all servers of the Redis Cluster."""

    def __init__(self, directory: Path, redis: RedisCluster) -> None:
        self.redis = redis
        super().__init__([Member(directory / f"node-{at}", engine(redis.url)) for at in range(3)])

    async def settle(self) -> None:
        """Whoever was killed is back as a replica, and has all that its master has."""
        await asyncio.to_thread(self.redis.repair)


async def hand_over(stage: Stage[Slotted]) -> None:
    """A channel's master and its replica change places."""
    await asyncio.to_thread(stage.cluster.redis.failover, CHANNELS[0])


async def kill_master(stage: Stage[Slotted]) -> None:
    """A channel's master dies without a word, and its replica takes over."""
    redis = stage.cluster.redis
    dead = await asyncio.to_thread(redis.kill_master_of, CHANNELS[0])
    await asyncio.to_thread(until, lambda: redis.master_of(CHANNELS[0]) is not dead)


@contextlib.asynccontextmanager
async def slotted(directory: Path) -> AsyncIterator[Slotted]:
    """Start the Redis Cluster, then the members."""
    with cluster_running(folder(directory, "redis"), *EVERYTHING) as redis:
        async with started(Slotted(directory, redis)) as cluster:
            yield cluster


ON_SLOTS = Setting(
    slotted,
    brief=[Fault("a slot's master fails over, planned", hand_over, MASTER_CHANGED)],
    long=[Fault("a slot's master is killed", kill_master, LINK_BROKEN, LATE_SECONDS, Logs.MAY_DIE)],
)
