"""Fixtures of the Redis engine's own tests."""

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
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine

_numbers = itertools.count(1)


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """These run on the loop of `tocsin serve`; the contract runs on asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


Running = Callable[..., AbstractAsyncContextManager[Node]]


@pytest.fixture
def prefix() -> str:
    """Names that no other test uses."""
    return f"own{next(_numbers)}"


@pytest.fixture
def running(prefix: str) -> Running:
    """What makes a node, from the address of a Redis and a uid."""

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
def lasting_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that forgets nothing when it is killed."""
    with redis_running(tmp_path, "appendonly yes", "appendfsync always") as server:
        yield server


@pytest.fixture
def fleeting_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that remembers nothing when it is killed."""
    with redis_running(tmp_path, "appendonly no") as server:
        yield server


@pytest.fixture
async def swallower(redis_server: RedisServer) -> AsyncIterator[BlackholeProxy]:
    """A way to the shared Redis on which bytes can be lost."""
    async with blackhole_running(redis_server.port) as way:
        yield way
