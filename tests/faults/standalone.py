"""Three nodes on one Redis that writes everything down; the last one reaches it by a way that can be lost."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults.cluster import Cluster, Member, engine, folder, started
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy, blackhole_running
from tests.server.engine.redis.redis_server import RedisServer, redis_running

EVERYTHING = ("appendonly yes", "appendfsync always")


class Alone(Cluster):
    """Its members reach `redis` directly, the last one by `way`, on which bytes can be lost."""

    def __init__(self, directory: Path, redis: RedisServer, way: BlackholeProxy) -> None:
        self.redis = redis
        self.way = way
        urls = [redis.url, redis.url, way.url]
        super().__init__([Member(directory / f"node-{at}", engine(url)) for at, url in enumerate(urls)])

    async def restart_redis(self, *, empty: bool = False) -> None:
        """Kill it and start it again, with what it had written down or without."""
        await asyncio.to_thread(self.redis.stop)
        if empty:
            shutil.rmtree(self.redis.directory / "appendonlydir")
        await asyncio.to_thread(self.redis.start)

    def listener_ids(self) -> set[int]:
        """The connections that hear announcements, by their numbers at Redis."""
        return {int(line["id"]) for line in self.redis.client.client_list(_type="pubsub")}


@contextlib.asynccontextmanager
async def alone(directory: Path) -> AsyncIterator[Alone]:
    """Start Redis, then the members."""
    with redis_running(folder(directory, "redis"), *EVERYTHING) as redis:
        async with blackhole_running(redis.port) as way, started(Alone(directory, redis, way)) as cluster:
            yield cluster
