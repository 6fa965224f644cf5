"""Harnesses: how the contract tests make an engine of each kind, and advance its time."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, get_args

import pytest
from msgspec import Raw
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.engine.virtual_time import VirtualTime
from tests.support.redis_cluster import RedisCluster
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.event_options import EventOptions, RecordedType
from tocsin_server.engine.broker import Broker, NewPublication
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.nodes import NodeRegistry
from tocsin_server.engine.presence import PresenceStore
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine

EVENTS = EventOptions(types=get_args(RecordedType))
NO_HISTORY = ChannelOptions()
HISTORY = ChannelOptions(history_size=1000, history_ttl=3600)

MARK_RANGES = 6
"""More ranges of slots than a cluster has masters, so that each master serves one of them."""


def _mark_channels() -> list[str]:
    """One channel in each range of slots."""
    found: dict[int, str] = {}
    for number in itertools.count():
        channel = f"mark {number}"
        found.setdefault(key_slot(channel.encode()) * MARK_RANGES // REDIS_CLUSTER_HASH_SLOTS, channel)
        if len(found) == MARK_RANGES:
            return list(found.values())
    raise AssertionError


MARK_CHANNELS = _mark_channels()
"""The channels of `Node.catch_up`. Messages are received in order only if one master publishes them."""

_marks = itertools.count(1)
_prefixes = itertools.count(1)


class Harness(Protocol):
    """An empty store for one test."""

    unit: float
    """In seconds. Much longer than a test, so that nothing expires unless the test advances the time."""

    def engine(self) -> Engine:
        """Make an engine over this store. The caller starts and stops it."""

    def reopened(self, stopped: Engine) -> Engine:
        """Return an engine over the store of an engine that has stopped, as after a restart of a node."""

    async def advance(self, seconds: float) -> None:
        """Advance the engine's time: move its clock forward, or the expiry times backward."""


class MemoryHarness:
    """For the memory engine: its time is virtual, and its store is the engine itself."""

    unit = 1.0

    def __init__(self) -> None:
        self._time = VirtualTime()

    def engine(self) -> Engine:
        return MemoryEngine(clock=self._time.clock, call_later=self._time.call_later, events=EVENTS)

    def reopened(self, stopped: Engine) -> Engine:
        return stopped

    async def advance(self, seconds: float) -> None:
        self._time.advance(seconds)


class RedisHarness:
    """For the Redis engine: expiry times in Redis are moved backward. The store is a prefix of its own."""

    unit = 60.0

    def __init__(self, url: str, servers: Sequence[RedisServer]) -> None:
        self._address = parse_address(url)
        self._servers = servers
        self._prefix = f"test{next(_prefixes)}"

    def engine(self) -> Engine:
        return RedisEngine(self._address, self._prefix, events=EVENTS)

    def reopened(self, stopped: Engine) -> Engine:
        return self.engine()

    async def advance(self, seconds: float) -> None:
        for client in (server.client for server in self._servers):
            for key in client.scan_iter(f"{self._prefix}:*"):
                if (left := client.pttl(key)) >= 0:
                    client.pexpire(key, max(0, left - round(seconds * 1000)))


@asynccontextmanager
async def memory(_request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """A memory engine."""
    yield MemoryHarness()


@asynccontextmanager
async def redis(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """A Redis engine over a standalone Redis."""
    server: RedisServer = request.getfixturevalue("redis_server")
    yield RedisHarness(server.url, [server])


@asynccontextmanager
async def redis_cluster(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """A Redis engine over a Redis Cluster."""
    cluster: RedisCluster = request.getfixturevalue("redis_cluster")
    yield RedisHarness(cluster.url, cluster.masters)


HARNESSES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Harness]]] = {
    "memory": memory,
    "redis": redis,
    "redis-cluster": redis_cluster,
}
"""Every engine that the contract tests check, by the id of its tests."""

FOR_SEVERAL_NODES = ["redis", "redis-cluster"]
"""The engines whose store several nodes can share."""


class Node:
    """A running engine with a recording handler."""

    def __init__(self, engine: Engine, handler: RecordingHandler) -> None:
        self.engine = engine
        self.handler = handler

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
        """Wait until this node has received every message that was published so far in its channels."""
        mark = b"%d" % next(_marks)
        for channel in MARK_CHANNELS:
            await self.broker.subscribe(channel)
            await self.broker.publish(channel, NewPublication(Raw(mark)), NO_HISTORY)
        await self.handler.until(lambda: all(mark in self.handler.payloads(one) for one in MARK_CHANNELS))


@asynccontextmanager
async def running(harness: Harness, uid: str = "n1") -> AsyncIterator[Node]:
    """Run a node over the harness's store."""
    node = Node(harness.engine(), RecordingHandler(uid))
    await node.engine.start(node.handler)
    try:
        yield node
    finally:
        await node.engine.stop()


def publication(number: int) -> NewPublication:
    """A publication whose data is a number."""
    return NewPublication(Raw(b"%d" % number))
