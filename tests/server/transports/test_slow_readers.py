"""Readers that take too little, on every transport: they are disconnected, and memory returns.

Each of them reads nothing, a byte now and then, or stops in the middle of a message.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import Raw

from tests.server.served_node import until
from tests.server.transports.hosts import application, under_uvicorn
from tests.server.transports.sse.stream_server import stream_server
from tests.support.raw_connection import HANDSHAKE, commands
from tests.support.timing import SOON, TICK
from tocsin_server.engine.broker import NewPublication
from tocsin_server.node import slow_clients
from tocsin_server.node.node import Node

CHANNEL = "history:1"
SUBSCRIBE = commands({"id": 1, "connect": {}}, {"id": 2, "subscribe": {"channel": CHANNEL}})
LARGE = NewPublication(Raw(b'"' + b"x" * 900_000 + b'"'))
COUNT = 8
"""So many large publications are more than the buffers of the kernel hold."""

CLIENT = {"send_timeout": 3 * TICK, "queue_limit_bytes": 50_000_000}


@pytest.fixture(autouse=True)
def _messages_are_taken_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the progress of a message is not seen, it has little longer than `send_timeout`."""
    monkeypatch.setattr(slow_clients, "LEAST_RATE", 20_000_000)


@dataclass
class Served:
    """A node, and the request that opens a connection subscribed to `CHANNEL`."""

    node: Node
    address: tuple[str, int]
    request: bytes
    then: bytes = b""
    """What is sent after the first bytes of the response."""


@asynccontextmanager
async def raw(client: dict[str, Any], limits: dict[str, Any]) -> AsyncIterator[Served]:
    async with stream_server(client=client, limits=limits) as server:
        host, port = server.url.removeprefix("http://").split(":")
        yield Served(server.node, (host, int(port)), HANDSHAKE, SUBSCRIBE)


@asynccontextmanager
async def sse(client: dict[str, Any], limits: dict[str, Any]) -> AsyncIterator[Served]:
    async with raw(client, limits) as served:
        request = f"GET /events?channel={CHANNEL} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        yield Served(served.node, served.address, request)


@asynccontextmanager
async def asgi(client: dict[str, Any], limits: dict[str, Any]) -> AsyncIterator[Served]:
    app, node = application(client=client, limits=limits)
    async with under_uvicorn(app) as host:
        address, port = host.authority.split(":")
        handshake = HANDSHAKE.replace(b"/connection", b"/push/connection")
        yield Served(node, (address, int(port)), handshake, SUBSCRIBE)


Serve = Callable[[dict[str, Any], dict[str, Any]], AbstractAsyncContextManager[Served]]


@asynccontextmanager
async def subscribed(served: Served) -> AsyncIterator[socket.socket]:
    """A socket with a small buffer whose connection is subscribed, and that has read nothing since."""
    loop, before = asyncio.get_running_loop(), len(served.node.hub)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, served.address)
        await loop.sock_sendall(sock, served.request)
        if served.then:
            await loop.sock_recv(sock, 1000)
            await loop.sock_sendall(sock, served.then)
        await until(lambda: len(served.node.hub) > before and len(served.node.hub.channels[CHANNEL]) > before)
        yield sock


async def publish(served: Served, count: int = COUNT) -> None:
    for _ in range(count):
        await served.node.operations.publish(CHANNEL, LARGE)
        await asyncio.sleep(0)


async def read_nothing(_sock: socket.socket) -> None:
    await asyncio.Event().wait()


async def read_a_byte_now_and_then(sock: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(sock, 1):  # noqa: ASYNC110 - slow on purpose
        await asyncio.sleep(TICK / 10)


async def stop_in_a_message(sock: socket.socket) -> None:
    """Read quickly, then stop for ever before the first message is complete."""
    left = 500_000
    while left > 0:
        data = await asyncio.get_running_loop().sock_recv(sock, left)
        assert data, "closed"
        left -= len(data)
    await asyncio.Event().wait()


@pytest.mark.parametrize("serve", [raw, asgi, sse])
@pytest.mark.parametrize("read", [read_nothing, read_a_byte_now_and_then, stop_in_a_message])
async def test_a_client_that_takes_too_little_is_disconnected(
    serve: Serve, read: Callable[[socket.socket], Any]
) -> None:
    """As slow (3008), after `send_timeout`, although far less is queued than the limit."""
    async with serve(CLIENT, {}) as served, subscribed(served) as sock:
        reading = asyncio.create_task(read(sock))
        await publish(served)
        await until(lambda: not served.node.state.connections)
        page = served.node.metrics.page().decode()
        assert 'tocsin_disconnects_total{code="3008"} 1.0' in page
        assert 'tocsin_limits_reached_total{limit="client.send_timeout"} 1.0' in page
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await reading
    await until(lambda: not len(served.node._session_io._slow_clients))


@pytest.mark.parametrize("serve", [raw, asgi, sse])
async def test_a_slow_reader_that_goes_on_reading_gets_everything(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is behind for longer than `send_timeout`, and is not slow."""
    monkeypatch.setattr(slow_clients, "LEAST_RATE", 1_000_000 / SOON)
    async with serve({**CLIENT, "send_timeout": 10 * TICK}, {}) as served, subscribed(served) as sock:
        loop = asyncio.get_running_loop()
        await publish(served, 4)
        received = 0
        began = loop.time()
        while received < 4 * 900_000:
            data = await loop.sock_recv(sock, 100_000)
            assert data, "closed"
            received += len(data)
            if loop.time() < began + 15 * TICK:
                await asyncio.sleep(TICK / 20)
        assert len(served.node.state.connections) == 1


@pytest.mark.parametrize("serve", [raw, asgi, sse])
async def test_the_largest_queue_is_dropped_above_the_limit_of_the_process(serve: Serve) -> None:
    """Its client gets no further byte than those that the kernel has; the others are not affected."""
    limits = {"queued_bytes": 10_000_000}
    async with (
        serve({**CLIENT, "send_timeout": 600}, limits) as served,
        subscribed(served),
        subscribed(served),
        subscribed(served),
    ):
        connections = set(served.node.state.connections)
        await publish(served)
        await until(lambda: len(served.node.state.connections) < 3)
        assert sum(one.queued_bytes for one in served.node.state.connections) <= limits["queued_bytes"]
        assert served.node.state.connections
        await until(lambda: len(served.node._session_io._slow_clients) == len(served.node.state.connections))
        page = served.node.metrics.page().decode()
        dropped = len(connections) - len(served.node.state.connections)
        assert f'tocsin_limits_reached_total{{limit="limits.queued_bytes"}} {dropped}.0' in page
