"""Limits on HTTP connections: on the time and size of a request's head, and on unread responses."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.server.served_node import ServedNode, serve_node, until
from tests.support.timing import SOON, TICK
from tocsin_server.serving import http_connection, http_limits
from tocsin_server.transports.websocket.handshake import HEAD_LIMIT_BYTES

LIMIT = 3 * TICK
SHORT = {"stale_timeout": LIMIT}
LIVE = b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"
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
    """A body has its own, and an idle connection may stay open."""
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
    monkeypatch.setattr(http_connection, "STALL_SECONDS", LIMIT)

    async def large(_request: Request) -> Response:
        return Response(bytes(20_000_000))

    async with serve_node(routes=[Route("/large", large)]) as served_node:
        connections = served_node.server.server_state.connections
        async with served_node.tcp(receive_buffer=2048) as (connection, _):
            await connection.send(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
            await until(lambda: len(connections) == 1)
            await until(lambda: not connections)


@pytest.mark.parametrize("size", [HEAD_LIMIT_BYTES, HEAD_LIMIT_BYTES + 1])
async def test_the_limit_of_a_head_is_exact(size: int) -> None:
    head = b"GET /health/live HTTP/1.1\r\nHost: here\r\nX-Fill: %s\r\n\r\n"
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(head % (b"x" * (size - len(head % b""))))
        assert await connection.response() == (200 if size == HEAD_LIMIT_BYTES else 431)


@pytest.mark.parametrize("count", [http_limits.HEADER_LIMIT, http_limits.HEADER_LIMIT + 1])
async def test_the_limit_of_headers_is_exact(count: int) -> None:
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(b"GET /health/live HTTP/1.1\r\n" + b"a: b\r\n" * count + b"\r\n")
        assert await connection.response() == (200 if count == http_limits.HEADER_LIMIT else 431)


CHUNKED = b"POST /api/info HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "endless",
    [b"0\r\n" + b"a: b\r\n" * 30_000, b"1;" + b"x" * 100_000, b"0\r\n" + b"a" * 100_000],
    ids=["trailers", "an extension", "a trailer"],
)
async def test_a_chunked_body_has_a_limit_of_bytes_that_are_no_content(endless: bytes) -> None:
    """They would otherwise be kept, or read, without end."""
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(CHUNKED + endless)
        assert (await connection.read_to_end()).partition(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad Request")
        await until(lambda: not served_node.server.server_state.connections)
        await until(lambda: not served_node.server.server_state.tasks)


async def test_a_body_may_come_in_chunks_of_one_byte_and_have_trailers() -> None:
    body = b"".join(b"1\r\n%c\r\n" % byte for byte in b"{" + b" " * 5000 + b"}")
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(CHUNKED + body + b"0\r\nX-Trailer: 1\r\n\r\n" + REQUEST + b"{}")
        assert (await connection.read_until_responses(2)) == [200, 200]


@pytest.mark.parametrize("begin", [b"", b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n"])
async def test_line_breaks_keep_no_connection_open(begin: bytes) -> None:
    """RFC 9112 §2.2 allows them before a request. They begin none, so the time of an idle one goes on."""
    server = {"keep_alive_timeout": LIMIT}
    async with serve_node(client=SHORT, server=server) as served_node, served_node.tcp() as (connection, _):
        await connection.send(begin + b"\r\n")
        ending = asyncio.create_task(connection.read_to_end())
        while not ending.done():
            await connection.send(b"\r\n")
            await asyncio.sleep(TICK / 4)
        assert not served_node.server.server_state.connections


@pytest.mark.parametrize("path", [b"/api/info", b"/events?channel=open:1", b"/nowhere"])
async def test_a_body_that_stops_is_dropped(monkeypatch: pytest.MonkeyPatch, path: bytes) -> None:
    """Whether it is read or not, and with any response."""
    monkeypatch.setattr(http_connection, "BODY_SECONDS", LIMIT)
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        method = b"GET" if path.startswith(b"/events") else b"POST"
        await connection.send(method + b" " + path + b" HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nx")
        await connection.read_to_end()
        assert not served_node.server.server_state.connections
        await served_node.until_empty()


async def test_a_body_that_is_fast_enough_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte gives it time."""
    monkeypatch.setattr(http_connection, "BODY_SECONDS", LIMIT)
    monkeypatch.setattr(http_connection, "BODY_BYTES_PER_SECOND", 1 / SOON)
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(REQUEST + b"{")
        await asyncio.sleep(LIMIT + TICK)
        await connection.send(b"}")
        assert await connection.response() == 200


async def test_what_is_sent_behind_a_request_waits_for_its_response() -> None:
    """It is neither parsed nor read beyond what one read brought, and nothing of it is lost."""
    gate = asyncio.Event()

    async def slow(_request: Request) -> Response:
        await gate.wait()
        return Response()

    count = 3000
    async with serve_node(routes=[Route("/slow", slow)]) as served_node, served_node.tcp() as (connection, _):
        await connection.send(b"GET /slow HTTP/1.1\r\nHost: here\r\n\r\n")
        (http,) = await connections_of(served_node)
        await until(lambda: http._running is not None)
        http.data_received(LIVE * count)
        assert len(http._unread) == len(LIVE) * count
        assert bool(http.flow.read_paused)
        assert not http.pipeline
        gate.set()
        assert await connection.read_until_responses(count + 1) == [200] * (count + 1)
        assert (http.flow.read_paused, http._unread) == (False, b"")


async def test_many_requests_at_once_are_parsed_in_turns() -> None:
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(LIVE)
        assert await connection.read_until_responses(1) == [200]
        (http,) = await connections_of(served_node)
        http.data_received(LIVE * 1000)
        assert len(http.pipeline) < http_limits.PIECE_BYTES / len(LIVE) + 1
        assert len(http._unread) > len(LIVE) * 900
        assert await connection.read_until_responses(1000) == [200] * 1000


async def test_what_is_sent_behind_an_event_stream_is_discarded() -> None:
    """Its response is the last of the connection. A client that sends without end is dropped."""
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(b"GET /events?channel=open:1 HTTP/1.1\r\nHost: here\r\n\r\n" + LIVE * 100)
        assert await connection.response() == 200
        (http,) = await connections_of(served_node)
        await until(lambda: not http._unread)
        http.data_received(bytes(http_limits.DISCARDED_BYTES - http._discarded_bytes))
        assert not http._unread
        assert not http.flow.read_paused
        assert not http.pipeline
        assert not http.transport.is_closing()
        http.data_received(b"G")
        assert http.transport.is_closing()
        await served_node.until_empty()


async def test_an_upgrade_to_something_else_is_ignored() -> None:
    """HTTP clients of Java and curl offer HTTP/2 so, also with a body."""
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    request = REQUEST.replace(b"Host: here\r\n", b"Host: here\r\n" + upgrade)
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send((request + b"{}") * 3)
        assert await connection.read_until_responses(3) == [200] * 3


async def test_a_client_may_wait_for_100_continue() -> None:
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(REQUEST.replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert await connection.response() == 100
        await connection.send(b"{}")
        assert await connection.response() == 200


async def test_nonsense_behind_a_request_ends_the_connection_after_its_response() -> None:
    """Another response would be taken for that of the request."""
    async with serve_node() as served_node, served_node.tcp() as (connection, _):
        await connection.send(LIVE + b"nonsense\r\n\r\n" + LIVE)
        answer = await connection.read_to_end()
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.startswith(b"HTTP/1.1 200 ")


async def connections_of(served_node: ServedNode) -> list[http_limits.HttpProtocol]:
    """The open HTTP connections, once there is one."""

    def found() -> list[http_limits.HttpProtocol]:
        connections = served_node.server.server_state.connections
        return [one for one in connections if isinstance(one, http_limits.HttpProtocol)]

    await until(found)
    return found()
