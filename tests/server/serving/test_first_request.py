"""The first bytes of a connection become a WebSocket or HTTP, as a whole or in pieces."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from tests.server.served_node import ServedNode, serve_node, until
from tests.server.transports.websocket.raw_session import CONNECT, read_messages
from tests.support.raw_connection import HANDSHAKE, commands
from tocsin_server.serving.first_request import HANDSHAKE_BYTES, FirstRequest
from tocsin_server.serving.http_limits import HEADER_LIMIT, HttpProtocol
from tocsin_server.transports.websocket.handshake import HEAD_LIMIT_BYTES
from tocsin_server.transports.websocket.raw import WebSocketConnection

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"

REQUESTS = {
    "a handshake": (HANDSHAKE, 101),
    "names in lower case": (HANDSHAKE.replace(b"Upgrade: websocket", b"upgrade: WebSocket"), 101),
    "several options": (HANDSHAKE.replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"), 101),
    "two lines of options": (HANDSHAKE.replace(KEY, KEY + b"Connection: keep-alive\r\n"), 101),
    "a query": (HANDSHAKE.replace(b" HTTP", b"?format=json HTTP"), 101),
    "a large cookie": (HANDSHAKE.replace(KEY, KEY + b"Cookie: a=%b\r\n" % (b"x" * HANDSHAKE_BYTES)), 101),
    "two keys": (HANDSHAKE.replace(KEY, KEY * 2), 400),
    "no key": (HANDSHAKE.replace(KEY, b""), 400),
    "a key of 15 bytes": (HANDSHAKE.replace(KEY, b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n"), 400),
    "two versions": (HANDSHAKE.replace(VERSION, VERSION * 2), 400),
    "another version": (HANDSHAKE.replace(VERSION, b"Sec-WebSocket-Version: 8\r\n"), 400),
    "a chunked body": (HANDSHAKE.replace(KEY, KEY + b"Transfer-Encoding: chunked\r\n"), 400),
    "many headers": (
        HANDSHAKE.replace(KEY, KEY + b"".join(b"X-%d: 1\r\n" % i for i in range(HEADER_LIMIT))),
        431,
    ),
    "a large head": (HANDSHAKE.replace(KEY, KEY + b"X: %b\r\n" % (b"x" * HEAD_LIMIT_BYTES)), 431),
    "a POST": (HANDSHAKE.replace(b"GET", b"POST"), 405),
    "a position": (HANDSHAKE.replace(b" HTTP", b"?offset=1 HTTP"), 400),
    "a position in a header": (HANDSHAKE.replace(KEY, KEY + b"Last-Event-ID: 1\r\n"), 400),
    "no Upgrade": (HANDSHAKE.replace(b"Upgrade: websocket\r\n", b""), 400),
    "another path below it": (HANDSHAKE.replace(b"/websocket", b"/websocket/more"), 403),
    "no HTTP": (HANDSHAKE.replace(b"HTTP/1.1", b"HTTX/1.1"), 400),
    "a request": (b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n", 200),
}


@pytest.fixture
async def served_node() -> AsyncIterator[ServedNode]:
    async with serve_node() as served:
        yield served


@pytest.mark.parametrize(("data", "status"), REQUESTS.values(), ids=REQUESTS)
async def test_a_request_has_the_same_answer_however_it_arrives(
    served_node: ServedNode, data: bytes, status: int
) -> None:
    async with served_node.tcp() as (connection, _):
        await connection.send(data)
        assert await connection.response() == status
    if data.endswith(b"\r\n\r\n") and b"HTTX" not in data:
        connections: Collection[Any] = served_node.server.server_state.connections
        await until(lambda: not connections)
        async with served_node.tcp() as (connection, _):
            await until(lambda: connections)
            await connection.send(data[:20])
            await until(lambda: _has_read(served_node))
            await connection.send(data[20:])
            assert await connection.response() == status


def _has(served_node: ServedNode, kind: type) -> bool:
    return any(isinstance(one, kind) for one in served_node.server.server_state.connections)


def _has_read(served_node: ServedNode) -> bool:
    """Whether the first bytes of the only connection have arrived."""
    (connection,) = served_node.server.server_state.connections
    first_request = getattr(connection, "_first_request", None)
    return first_request is None or bool(first_request._received)


def _has_received(first_request: FirstRequest, data: bytes) -> bool:
    return first_request._received == data


async def test_a_handshake_that_arrives_in_parts_opens_a_websocket(served_node: ServedNode) -> None:
    """It costs no HTTP protocol. Thousands of them would hold up the node."""
    connections: Collection[Any] = served_node.server.server_state.connections
    async with served_node.tcp() as (raw, _):
        await until(lambda: connections)
        (connection,) = connections
        first_request = connection._first_request
        for first, end in pairwise((0, 1, 2, 30, len(HANDSHAKE) - 1)):
            await raw.send(HANDSHAKE[first:end])
            await until(partial(_has_received, first_request, HANDSHAKE[:end]))
            assert connections == {connection}
        await raw.send(HANDSHAKE[-1:] + commands(CONNECT))
        assert await raw.response() == 101
        (reply,) = await read_messages(raw, 1)
        assert reply["connect"]["client"], json.dumps(reply)


async def test_frames_right_behind_a_handshake_are_read(served_node: ServedNode) -> None:
    async with served_node.tcp() as (connection, _):
        await connection.send(HANDSHAKE + commands(CONNECT))
        assert await connection.response() == 101
        (reply,) = await read_messages(connection, 1)
        assert reply["connect"]["client"], json.dumps(reply)


async def test_the_time_limit_of_the_head_goes_on_with_http() -> None:
    """A first byte does not begin it again."""
    seconds = 1000
    async with serve_node(client={"stale_timeout": seconds}) as served_node, served_node.tcp() as (raw, _):
        connections: Collection[Any] = served_node.server.server_state.connections
        await until(lambda: _has(served_node, WebSocketConnection))
        (first,) = connections
        until_when = first._first_request._head_until
        await raw.send(b"P")
        await until(lambda: _has(served_node, HttpProtocol))
        (http,) = connections
        assert http._head_until == pytest.approx(until_when, abs=0.1)
