"""Limits on HTTP connections: on the time and size of a request's head, and on unread responses."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.server.served_node import serve_node, until
from tests.support.timing import TICK
from tocsin_server.serving import http_limits
from tocsin_server.transports.websocket.handshake import HEAD_LIMIT_BYTES

LIMIT = 3 * TICK
SHORT = {"stale_timeout": LIMIT}
REQUEST = b"POST /api/info HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n"


@pytest.mark.parametrize("start", [b"", b"G", b"GET /health/live HTTP/1.1\r\nHost: here\r\n"])
async def test_a_connection_without_a_complete_head_is_dropped(start: bytes) -> None:
    """Its client would hold the socket for ever."""
    async with serve_node(client=SHORT) as served_node, served_node.tcp() as (connection, _):
        await connection.send(start)
        assert await connection.read_to_end() == b""


async def test_the_head_of_a_later_request_has_the_same_limit() -> None:
    async with serve_node(client=SHORT) as served_node, served_node.tcp() as (connection, _):
        await connection.send(b"HEAD /health/live HTTP/1.1\r\nHost: here\r\n\r\n")
        assert await connection.response() == 200
        await connection.send(b"GET /health/live HTTP/1.1\r\n")
        assert await connection.read_to_end() == b""


async def test_the_limit_does_not_apply_to_bodies() -> None:
    """A body may arrive slowly, and an idle connection may stay open."""
    async with serve_node(client=SHORT) as served_node, served_node.tcp() as (connection, _):
        for _ in range(2):
            await connection.send(REQUEST)
            await asyncio.sleep(LIMIT + TICK)
            await connection.send(b"{}")
            assert await connection.response() == 200


async def test_a_head_above_the_limit_is_refused() -> None:
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        line = b"X-Line: " + b"x" * 1000 + b"\r\n"
        await connection.send(b"GET / HTTP/1.1\r\n" + line * (HEAD_LIMIT_BYTES // len(line) + 1))
        assert (await connection.read_to_end()).startswith(b"HTTP/1.1 431 ")


async def test_a_client_that_reads_no_response_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit starts once the server's buffer for it is full."""
    monkeypatch.setattr(http_limits, "STALL_SECONDS", LIMIT)

    async def large(_request: Request) -> Response:
        return Response(bytes(20_000_000))

    async with serve_node(routes=[Route("/large", large)]) as served_node:
        connections = served_node.server.server_state.connections
        async with served_node.tcp(receive_buffer=2048) as (connection, _):
            await connection.send(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
            await until(lambda: len(connections) == 1)
            await until(lambda: not connections)
