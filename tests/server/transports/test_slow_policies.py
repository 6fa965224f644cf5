"""Slow-client policies on real sockets: what a client that was behind gets once it reads again."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from msgspec import Raw

from tests.server.served_node import until
from tests.server.transports.sse.stream_server import HISTORY, OPEN, StreamServer, stream_server
from tests.support.raw_connection import HANDSHAKE, commands
from tests.support.timing import SOON
from tocsin_server.engine.broker import NewPublication

NAMESPACES = {
    "all": {**OPEN, "slow_policy": "drop_oldest", "slow_limit_bytes": 20_000_000},
    "some": {**OPEN, "slow_policy": "drop_oldest", "slow_limit_bytes": 1000},
    "kept": {
        **OPEN,
        **HISTORY,
        "force_recovery": True,
        "slow_policy": "drop_oldest",
        "slow_limit_bytes": 1000,
    },
    "newest": {**OPEN, "slow_policy": "latest", "slow_key": "room"},
}
START = re.compile(r'"push":(?={)|data: (?={)')
"""What comes before a push in a frame, and before the data of an event."""


class Reader:
    """A client with a small receive buffer, which reads only when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._unread = ""

    async def push(self) -> Any:
        """The next push, or the data of the next event."""
        async with asyncio.timeout(SOON):
            while (push := self._parse()) is None:
                data = b""
                while b"}" not in data:  # it ends every message
                    received = await asyncio.get_running_loop().sock_recv(self._sock, 100_000)
                    assert received, "closed"
                    data += received
                self._unread += data.decode("latin-1")
        return push

    def _parse(self) -> Any:
        found = START.search(self._unread)
        if found is None:
            return None
        try:
            message, end = json.JSONDecoder().raw_decode(self._unread, found.end())
        except ValueError:  # it is not complete
            return None
        self._unread = self._unread[end:]
        return message

    async def publication(self) -> Any:
        """The next publication's number, or the code of an unsubscribe."""
        while True:
            push = await self.push()
            if "pub" in push:
                return push["pub"]["data"]["n"]
            if "unsubscribe" in push:
                return push["unsubscribe"]["code"]
            if "from" in push:
                return push


@asynccontextmanager
async def raw(server: StreamServer, channel: str) -> AsyncIterator[Reader]:
    subscribe = {"id": 2, "subscribe": {"channel": channel}}
    async with connected(server, HANDSHAKE) as (sock, reader):
        await asyncio.get_running_loop().sock_recv(sock, 1000)
        await asyncio.get_running_loop().sock_sendall(sock, commands({"id": 1, "connect": {}}, subscribe))
        await until(lambda: is_live(server, channel))
        yield reader


@asynccontextmanager
async def sse(server: StreamServer, channel: str) -> AsyncIterator[Reader]:
    """Over HTTP/1.0, which has no chunks."""
    request = f"GET /events?channel={channel} HTTP/1.0\r\nHost: x\r\n\r\n".encode()
    async with connected(server, request) as (_, reader):
        await until(lambda: is_live(server, channel))
        yield reader


def is_live(server: StreamServer, channel: str) -> bool:
    """Whether the channel has a subscriber for which nothing is kept, as it is while a stream opens."""
    found = server.node.hub.channels.get(channel)
    return found is not None and len(found) > 0 and not found._kept_aside


@asynccontextmanager
async def connected(server: StreamServer, request: bytes) -> AsyncIterator[tuple[socket.socket, Reader]]:
    loop, url = asyncio.get_running_loop(), httpx.URL(server.url)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, (url.host, url.port))
        await loop.sock_sendall(sock, request)
        yield sock, Reader(sock)


async def publish(
    server: StreamServer, channel: str, number: int, room: str = "a", filler: int = 20_000
) -> None:
    data = Raw(json.dumps({"n": number, "filler": "x" * filler}).encode())
    await server.node.operations.publish(channel, NewPublication(data, tags={"room": room}))
    await asyncio.sleep(0)


async def fall_behind(server: StreamServer, channel: str) -> None:
    """Publish number 1, which is so large that its client is behind until it reads; the next are kept."""
    await publish(server, channel, 1, filler=1_000_000)
    await until(lambda: server.node.hub.channels[channel]._kept_aside)


Connect = Callable[[StreamServer, str], Any]
both = pytest.mark.parametrize("connect", [raw, sse])


@both
async def test_everything_is_kept_up_to_the_limit(connect: Connect) -> None:
    """The client is not disconnected, although it reads late, and misses nothing."""
    async with stream_server(namespaces=NAMESPACES) as server, connect(server, "all:1") as reader:
        last = 300
        await fall_behind(server, "all:1")
        (connection,) = server.node.state.connections
        queued = connection.queued_bytes
        for number in range(2, last + 1):
            await publish(server, "all:1", number)
        assert connection.queued_bytes <= queued
        assert [await reader.publication() for _ in range(last)] == list(range(1, last + 1))
        await publish(server, "all:1", 0)
        assert await reader.publication() == 0


@both
async def test_the_newest_of_each_key_is_kept(connect: Connect) -> None:
    async with stream_server(namespaces=NAMESPACES) as server, connect(server, "newest:1") as reader:
        await fall_behind(server, "newest:1")
        for number in range(2, 102):
            await publish(server, "newest:1", number, room="b" if number % 2 else "c")
        received = [await reader.publication()]
        while received[-1] < 101:
            received.append(await reader.publication())
        assert received == [1, 100, 101]
        page = server.node.metrics.page().decode()
        assert 'tocsin_undelivered_publications_total{policy="latest"} 98.0' in page


@both
async def test_without_a_position_the_newest_follow_what_was_dropped(connect: Connect) -> None:
    async with stream_server(namespaces=NAMESPACES) as server, connect(server, "some:1") as reader:
        await fall_behind(server, "some:1")
        for number in range(2, 102):
            await publish(server, "some:1", number)
        assert [await reader.publication() for _ in range(2)] == [1, 101]


@both
async def test_a_client_with_a_position_is_told_of_the_gap(connect: Connect) -> None:
    """A WebSocket client subscribes again (2500), and recovers or learns that it cannot."""
    async with stream_server(namespaces=NAMESPACES) as server, connect(server, "kept:1") as reader:
        await fall_behind(server, "kept:1")
        for number in range(2, 102):
            await publish(server, "kept:1", number)
        assert await reader.publication() == 1
        told = await reader.publication()
        if connect is raw:
            assert told == 2500
        else:
            assert (told["from"]["offset"], told["to"]["offset"]) == (1, 101)
