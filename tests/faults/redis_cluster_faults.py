"""Failovers in Redis Cluster, planned and unplanned: three masters, each with a replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults.cluster import Cluster, NodeProcess, config_with_engine, make_folder, run_cluster
from tests.faults.fault_environment import (
    CHANNELS,
    LATE_SECONDS,
    MASTER_ADDED,
    REDIS_DISCONNECTED,
    Fault,
    FaultEnvironment,
    FaultGroup,
    HistoryLoss,
)
from tests.faults.standalone import DURABLE
from tests.support.redis_cluster import RedisCluster, cluster_running, until


class RedisClusterNodes(Cluster):
    """Three nodes that share a Redis Cluster."""

    def __init__(self, directory: Path, redis: RedisCluster) -> None:
        self.redis = redis
        super().__init__(
            [NodeProcess(directory / f"node-{at}", config_with_engine(redis.url)) for at in range(3)]
        )

    async def settle(self) -> None:
        """Restart killed servers as replicas, and wait until they are in sync."""
        await asyncio.to_thread(self.redis.repair)


async def fail_over_as_planned(environment: FaultEnvironment[RedisClusterNodes]) -> None:
    """The master of a channel's slot and its replica exchange roles."""
    await asyncio.to_thread(environment.cluster.redis.failover, CHANNELS[0])


async def kill_master(environment: FaultEnvironment[RedisClusterNodes]) -> None:
    """The master of a channel's slot is killed, and its replica is promoted."""
    redis = environment.cluster.redis
    dead = await asyncio.to_thread(redis.kill_master_of, CHANNELS[0])
    await asyncio.to_thread(until, lambda: redis.master_of(CHANNELS[0]) is not dead)


@contextlib.asynccontextmanager
async def redis_cluster_nodes(directory: Path) -> AsyncIterator[RedisClusterNodes]:
    """Start the Redis Cluster, then the nodes."""
    with cluster_running(make_folder(directory, "redis"), *DURABLE) as redis:
        async with run_cluster(RedisClusterNodes(directory, redis)) as cluster:
            yield cluster


REDIS_CLUSTER_FAULTS = FaultGroup(
    redis_cluster_nodes,
    quick=[Fault("a planned failover of a slot's master", fail_over_as_planned, MASTER_ADDED)],
    slow=[
        Fault(
            "a slot's master is killed",
            kill_master,
            REDIS_DISCONNECTED,
            LATE_SECONDS,
            HistoryLoss.POSSIBLE,
        )
    ],
)
