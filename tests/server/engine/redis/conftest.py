"""Fixtures for the tests of the Redis engine."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from tests.server.engine.contract.harness import Node
from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy, blackhole_running
from tests.server.engine.redis.intervals import shorten_leases, shorten_timeouts
from tests.server.engine.redis.node_process import NodeProcess, node_process_running
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine

_numbers = itertools.count(1)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Use the event loop of `tocsin serve`. The contract tests use asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


Running = Callable[..., AbstractAsyncContextManager[Node]]


@pytest.fixture
def prefix() -> str:
    """A prefix that no other test uses."""
    return f"own{next(_numbers)}"


@pytest.fixture
def running(prefix: str) -> Running:
    """A function that runs a node, given the URL of a Redis and a uid."""

    @asynccontextmanager
    async def run(url: str, uid: str = "n1") -> AsyncIterator[Node]:
        node = Node(RedisEngine(parse_address(url), prefix), RecordingHandler(uid))
        await node.engine.start(node.handler)
        try:
            yield node
        finally:
            await node.engine.stop()

    return run


@pytest.fixture
async def node(running: Running, redis_server: RedisServer) -> AsyncIterator[Node]:
    """A node over the Redis that tests share."""
    async with running(redis_server.url) as node:
        yield node


@pytest.fixture
def persistent_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that keeps all its data when it is killed."""
    with redis_running(tmp_path, "appendonly yes", "appendfsync always") as server:
        yield server


@pytest.fixture
def volatile_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that loses all its data when it is killed."""
    with redis_running(tmp_path, "appendonly no") as server:
        yield server


@pytest.fixture
async def proxy(redis_server: RedisServer) -> AsyncIterator[BlackholeProxy]:
    """A proxy in front of the shared Redis that can drop bytes."""
    async with blackhole_running(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes in this process renew and expire leases sooner. A NodeProcess does so in any case."""
    shorten_leases(monkeypatch.setattr)


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes in this process detect deaf and silent connections sooner."""
    shorten_timeouts(monkeypatch.setattr)


@pytest.fixture
async def node_process(redis_server: RedisServer, prefix: str) -> AsyncIterator[NodeProcess]:
    """A node with the uid `other`, in its own process."""
    async with node_process_running(redis_server.url, prefix, "other") as node:
        yield node
