"""Three nodes on one standalone Redis with an append-only file. The last node reaches it through a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults.cluster import Cluster, NodeProcess, config_with_engine, make_folder, run_cluster
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy, ProxyProcess, blackhole_running
from tests.server.engine.redis.redis_server import RedisServer, redis_running

DURABLE = ("appendonly yes", "appendfsync always")
"""Redis configuration: a write is on the disk before it is acknowledged."""


class StandaloneCluster(Cluster):
    """Three nodes. Two reach `redis` directly, the last one through `proxy`, which can drop bytes."""

    def __init__(self, directory: Path, redis: RedisServer, proxy: BlackholeProxy | ProxyProcess) -> None:
        self.redis = redis
        self.proxy = proxy
        urls = [redis.url, redis.url, proxy.url]
        super().__init__(
            [NodeProcess(directory / f"node-{at}", config_with_engine(url)) for at, url in enumerate(urls)]
        )

    async def restart_redis(self, *, empty: bool = False) -> None:
        """Kill Redis and start it again, with its append-only file or without."""
        await asyncio.to_thread(self.redis.stop)
        if empty:
            shutil.rmtree(self.redis.directory / "appendonlydir")
        await asyncio.to_thread(self.redis.start)

    def pubsub_connections(self) -> set[int]:
        """The ids that Redis gives to the nodes' pub/sub connections."""
        return {int(line["id"]) for line in self.redis.client.client_list(_type="pubsub")}


@contextlib.asynccontextmanager
async def standalone_cluster(directory: Path) -> AsyncIterator[StandaloneCluster]:
    """Start Redis, then the nodes."""
    with redis_running(make_folder(directory, "redis"), *DURABLE) as redis:
        async with (
            blackhole_running(redis.port) as proxy,
            run_cluster(StandaloneCluster(directory, redis, proxy)) as cluster,
        ):
            yield cluster
