"""What the contract suite needs of an engine: how to make one, and how to let its time pass."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest
from msgspec import Raw

from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.engine.virtual_time import VirtualTime
from tests.support.redis_cluster import RedisCluster
from tocsin_server.config.options import ChannelOptions
from tocsin_server.engine.broker import Broker, NewPublication
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.nodes import NodeRegistry
from tocsin_server.engine.presence import PresenceStore
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine

NO_LOG = ChannelOptions()
LOG = ChannelOptions(history_size=1000, history_ttl=3600)

MARKS = "the suite's own channel"
_marks = itertools.count(1)
_prefixes = itertools.count(1)


class Harness(Protocol):
    """One empty store for one test."""

    unit: float
    """Seconds. Far more than a test takes, so that nothing expires by itself."""

    def engine(self) -> Engine:
        """A new engine over this store, to be started and stopped by whoever asked."""

    async def advance(self, seconds: float) -> None:
        """Let the engine's time pass: by moving its clock, or what is to expire."""


class MemoryHarness:
    """Time is virtual, so that nobody waits; the store is the engine itself."""

    unit = 1.0

    def __init__(self) -> None:
        self._time = VirtualTime()

    def engine(self) -> Engine:
        return MemoryEngine(clock=self._time.clock, call_later=self._time.call_later)

    async def advance(self, seconds: float) -> None:
        self._time.advance(seconds)


class RedisHarness:
    """Time is Redis' own: what is to expire is brought nearer. The store is a prefix that nobody else has."""

    unit = 60.0

    def __init__(self, url: str, servers: Sequence[RedisServer]) -> None:
        self._address = parse_address(url)
        self._servers = servers
        self._prefix = f"test{next(_prefixes)}"

    def engine(self) -> Engine:
        return RedisEngine(self._address, self._prefix)

    async def advance(self, seconds: float) -> None:
        for client in (server.client for server in self._servers):
            for key in client.scan_iter(f"{self._prefix}:*"):
                if (left := client.pttl(key)) >= 0:
                    client.pexpire(key, max(0, left - round(seconds * 1000)))


@asynccontextmanager
async def memory(_request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """For the memory engine."""
    yield MemoryHarness()


@asynccontextmanager
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """For the Redis engine, over a Redis of the tests' own."""
    server: RedisServer = request.getfixturevalue("redis_server")
    yield RedisHarness(server.url, [server])


@asynccontextmanager
async def redis_cluster(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """For the Redis engine, over a Redis Cluster of the tests' own."""
    cluster: RedisCluster = request.getfixturevalue("redis_cluster")
    yield RedisHarness(cluster.url, cluster.masters)


HARNESSES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Harness]]] = {
    "memory": memory,
    "redis": redis,
    "redis-cluster": redis_cluster,
}
"""Every engine that keeps the contract, by the id that its tests have."""

FOR_SEVERAL_NODES = ["redis", "redis-cluster"]
"""Those over whose store several nodes may run."""


class Node:
    """A running engine, and the witness of what it tells."""

    def __init__(self, engine: Engine, witness: RecordingHandler) -> None:
        self.engine = engine
        self.handler = witness

    @property
    def broker(self) -> Broker:
        return self.engine.broker

    @property
    def presence(self) -> PresenceStore:
        return self.engine.presence

    @property
    def nodes(self) -> NodeRegistry:
        return self.engine.nodes

    async def catch_up(self) -> None:
        """Wait until this node has heard everything that was announced so far, in channels it listens to."""
        mark = b"%d" % next(_marks)
        await self.broker.subscribe(MARKS)
        await self.broker.publish(MARKS, NewPublication(Raw(mark)), NO_LOG)
        await self.handler.until(lambda: mark in self.handler.payloads(MARKS))


@asynccontextmanager
async def running(harness: Harness, uid: str = "n1") -> AsyncIterator[Node]:
    """A node over the harness's store."""
    node = Node(harness.engine(), RecordingHandler(uid))
    await node.engine.start(node.handler)
    try:
        yield node
    finally:
        await node.engine.stop()


def publication(number: int) -> NewPublication:
    """A publication that says its number."""
    return NewPublication(Raw(b"%d" % number))
