"""Workers on one port share its connections evenly, and lose none of them."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest
import structlog

from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.api import NO_TLS
from tests.support.byte_counter import ByteCounter
from tests.support.raw_connection import open_tcp
from tests.support.server import Server, run_server
from tests.support.tcp import tcp_server
from tests.support.timing import STARTED, TICK
from tests.support.wire_client import WireClient, open_wire
from tocsin_server.serving import accepting
from tocsin_server.serving.accepting import Acceptor, NotedConnections, Share
from tocsin_server.serving.connection_counts import ABSENT, FEW, TOLERANCE, ConnectionCounts, share_limit

WORKERS = 3
CLIENTS = 90
MANY = 240
"""So many connections that `FEW` matters little."""

BEYOND_SHARE = 70
"""So many connections that two of three workers may not have them all."""

REQUEST = b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@contextmanager
def run_workers(url: str, folder: Path) -> Iterator[Server]:
    config = {
        "engine": {"url": url, "prefix": folder.name},
        "server": {"drain_seconds": 0},
        "channels": {"history_size": 10, "history_ttl": "60s"},
    }
    with run_server(config, folder, "--insecure", "--workers", str(WORKERS)) as server:
        yield server


@pytest.fixture(scope="module")
def pool(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with run_workers(redis.url, tmp_path_factory.mktemp("workers")) as server:
        yield server


@pytest.fixture
async def server(pool: Server) -> Server:
    """The pool that all tests share, with all its workers."""
    await until(lambda: len(workers(pool)) == WORKERS == len(uids(pool)))
    return pool


def workers(server: Server) -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process(server.process.pid).children()
    return children


def uids(server: Server) -> set[str]:
    """The nodes that accept connections: from then on they have an address."""
    response = httpx.post(f"{server.api_url}/info", json={}, trust_env=False, verify=NO_TLS)
    nodes = response.json().get("result", {"nodes": []})["nodes"]
    return {node["uid"] for node in nodes if node["address"]}


class Clients:
    """Connections, and the node of each."""

    def __init__(self, server: Server, stack: AsyncExitStack) -> None:
        self._server = server
        self._stack = stack
        self.all: list[tuple[str, WireClient]] = []

    async def connect(self) -> str:
        """Open one more connection. Returns its node."""
        wire = await self._stack.enter_async_context(open_wire(self._server))
        node = str((await wire.connect())["node"])
        self.all.append((node, wire))
        return node

    async def crowd(self, count: int) -> None:
        """Open so many connections at once."""
        await asyncio.gather(*(self.connect() for _ in range(count)))

    async def equalize(self) -> None:
        """Close connections of workers that have more than the one with the fewest."""
        fewest = min(self.counts().values())
        for node, wire in self.all:
            if self.counts()[node] > fewest:
                await wire.connection.close()

    def counts(self) -> Counter[str]:
        """The number of connections of each node, of those that are still open."""
        return Counter(node for node, wire in self.all if wire.connection.close_code is None)


@asynccontextmanager
async def clients_of(server: Server) -> AsyncIterator[Clients]:
    async with AsyncExitStack() as stack:
        yield Clients(server, stack)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(STARTED):
        while not holds():  # noqa: ASYNC110 - what other processes do has no event
            await asyncio.sleep(TICK / 2)


@pytest.mark.parametrize("is_crowd", [True, False], ids=["at once", "one by one"])
async def test_no_worker_has_much_more_than_the_mean(server: Server, is_crowd: bool) -> None:
    async with clients_of(server) as clients:
        if is_crowd:
            await clients.crowd(CLIENTS)
        else:
            for _ in range(CLIENTS):
                await clients.connect()
        mean = CLIENTS / WORKERS
        assert sum(clients.counts().values()) == CLIENTS
        assert max(clients.counts().values()) <= mean * (1 + TOLERANCE) + FEW + 1


async def test_a_worker_that_replaces_another_gets_the_next_connections(server: Server) -> None:
    """Until it has its share."""
    async with clients_of(server) as clients:
        await clients.crowd(MANY)
        await clients.equalize()
        before, known = clients.counts(), uids(server)
        os.kill(workers(server)[0].pid, signal.SIGKILL)
        await until(lambda: len(clients.counts()) == WORKERS - 1)
        left = clients.counts()
        (replaced,) = before.keys() - left.keys()  # the new worker has the same name
        await until(lambda: bool(uids(server) - known))
        while await clients.connect() != replaced:
            assert len(clients.all) < 2 * MANY
        nodes = [await clients.connect() for _ in range(MANY // WORKERS // 4)]
        assert nodes.count(replaced) >= len(nodes) * 3 // 4  # on a busy machine others may help
        assert not left - clients.counts(), "the connections of the other workers stay where they are"


async def test_connections_that_wait_for_a_worker_that_hangs_are_accepted_by_the_others(
    server: Server,
) -> None:
    async with clients_of(server) as clients:
        hanging = workers(server)[0]
        hanging.suspend()
        try:
            for _ in range(BEYOND_SHARE):
                await clients.connect()
        finally:
            hanging.resume()
        assert max(clients.counts().values()) > share_limit([0, *clients.counts().values()])


async def test_connections_that_wait_in_the_queue_survive_the_death_of_a_worker(server: Server) -> None:
    """They were accepted by the kernel, and by no worker."""
    async with AsyncExitStack() as stack:
        dying, *others = workers(server)
        for worker in (dying, *others):
            worker.suspend()
        waiting = [await stack.enter_async_context(open_tcp(server)) for _ in range(10)]
        for connection in waiting:
            await connection.send(REQUEST)
        dying.kill()
        for worker in others:
            worker.resume()
        for connection in waiting:
            assert await connection.response() == 200


async def test_redis_sends_a_publication_once_to_each_worker_that_has_subscribers(
    redis: RedisServer, tmp_path: Path
) -> None:
    """However many subscribers it has, and nothing to workers without one."""
    marker = b"once-for-each-worker"
    counter = ByteCounter(redis.port, marker)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(tcp_server(counter.handle))
        running = run_workers(f"redis://127.0.0.1:{port}", tmp_path)
        # a thread waits until the workers are ready, while this loop forwards their bytes
        server = await asyncio.to_thread(running.__enter__)
        stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
        clients = await stack.enter_async_context(clients_of(server))
        await clients.crowd(CLIENTS)
        some = dict(clients.all)
        assert len(some) == WORKERS
        for _, wire in clients.all:
            await wire.call("subscribe", channel="everywhere")
        first = next(iter(some.values()))
        await first.call("subscribe", channel="somewhere")
        for channel, expected in (("everywhere", WORKERS), ("somewhere", 1)):
            before = counter.marked
            await first.call("publish", channel=channel, data=marker.decode())
            receivers = [wire for _, wire in clients.all] if expected == WORKERS else [first]
            for wire in receivers:
                await wire.push("pub", channel)
            assert counter.marked - before == expected


# ----------------------------------------------------------------------------------------- one process alone


class Connection(asyncio.Protocol):
    """Counts itself."""

    def __init__(self, connections: NotedConnections) -> None:
        self.connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)


class Alone(NamedTuple):
    """A worker without others."""

    port: int
    connections: NotedConnections
    counts: ConnectionCounts


@asynccontextmanager
async def accepting_alone() -> AsyncIterator[Alone]:
    connections, counts = NotedConnections(), ConnectionCounts(1)
    acceptor = Acceptor(Share(counts, 0), connections, lambda: Connection(connections))
    listening = socket.create_server(("127.0.0.1", 0))
    acceptor.start([listening])
    try:
        yield Alone(listening.getsockname()[1], connections, counts)
    finally:
        acceptor.close()
        acceptor.close()


async def test_the_others_know_at_once_how_many_connections_a_worker_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even if it rests, and some of them end."""
    monkeypatch.setattr(accepting, "LOOK_SECONDS", STARTED)
    async with accepting_alone() as (port, connections, counts):
        for _ in range(FEW + 1):
            with socket.create_connection(("127.0.0.1", port)):
                await until(lambda: len(connections) == 1)
                await until(lambda: list(counts._counts) == [1])
            await until(lambda: not connections)
            await until(lambda: list(counts._counts) == [0])


async def test_a_connection_that_comes_alone_costs_one_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accept in vain costs as much as one that succeeds."""
    calls, accept = [], socket.socket.accept

    def counted(listening: socket.socket) -> tuple[socket.socket, object]:
        calls.append(listening)
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", counted)
    async with accepting_alone() as (port, connections, _):
        for number in range(1, FEW):
            with socket.create_connection(("127.0.0.1", port)):
                await until(lambda: len(connections) == 1)
                assert len(calls) == number
            await until(lambda: not connections)


@pytest.mark.parametrize("end", [NotedConnections.discard, NotedConnections.remove])
async def test_the_end_of_a_connection_is_noted_however_its_protocol_tells(
    end: Callable[[NotedConnections, object], None],
) -> None:
    """Uvicorn's HTTP discards itself; an application's own WebSocket removes itself."""
    async with accepting_alone() as (_, connections, counts):
        one = object()
        connections.add(one)
        assert list(counts._counts) == [1]
        end(connections, one)
        assert list(counts._counts) == [0]


async def test_a_worker_that_has_stopped_accepting_does_not_count_again() -> None:
    """When its last connections end."""
    async with accepting_alone() as alone:
        client = socket.create_connection(("127.0.0.1", alone.port))
        await until(lambda: len(alone.connections) == 1)
    client.close()
    await until(lambda: not alone.connections)
    assert list(alone.counts._counts) == [ABSENT]


async def test_a_worker_without_free_files_accepts_again_once_it_has_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection waits, the log says so, and the event loop is not busy in the meantime."""
    monkeypatch.setattr(accepting, "LOOK_SECONDS", TICK / 10)
    async with accepting_alone() as (port, connections, _):
        with socket.create_connection(("127.0.0.1", port)), structlog.testing.capture_logs() as logs:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            free = os.dup(0)
            os.close(free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            try:
                await until(lambda: bool(logs))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await until(lambda: len(connections) == 1)
        assert {(line["event"], line["error"]) for line in logs} == {("cannot_accept", "Too many open files")}
        await until(lambda: not connections)


async def test_a_connection_that_ended_is_freed_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        async with accepting_alone() as (port, connections, _):
            with socket.create_connection(("127.0.0.1", port)):
                await until(lambda: len(connections) == 1)
                ended = weakref.ref(next(iter(connections)))
            await until(lambda: not connections)
            await until(lambda: ended() is None)
    finally:
        gc.enable()
