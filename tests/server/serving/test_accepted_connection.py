"""The PROXY protocol on a listening address: from trusted proxies alone, before TLS, for every transport."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from websockets.asyncio.client import connect

from tests.server.metrics.metrics_page import of
from tests.server.served_node import ServedNode, serve_node, trusting
from tests.server.serving.test_proxy_header import SSL_TLV, version_2
from tests.support.timing import SOON, TICK

PROXIED = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}
LINE = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 443\r\n"
REQUEST = b"GET /who HTTP/1.1\r\nHost: push.test\r\nConnection: close\r\n\r\n"


async def who(request: Request) -> JSONResponse:
    """Say from where a request comes."""
    assert request.client is not None
    return JSONResponse([request.url.scheme, request.client.host, request.client.port])


ROUTES = [Route("/who", who)]


async def answer(served_node: ServedNode, *pieces: bytes) -> bytes:
    """What the server answers to these bytes, each of which it reads by itself."""
    async with served_node.tcp() as (connection, writer):
        for piece in pieces:
            await connection.send(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return await connection.read_to_end()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (LINE, b'["http","203.0.113.7",4711]'),
        (version_2("2001:db8::7", 4711), b'["http","2001:db8::7",4711]'),
        (version_2("203.0.113.7", 4711, tlvs=SSL_TLV), b'["https","203.0.113.7",4711]'),
        (b"PROXY UNKNOWN\r\n", b'["http","127.0.0.1",'),
        (version_2("203.0.113.7", 4711, command=0x20), b'["http","127.0.0.1",'),
    ],
)
async def test_requests_come_from_the_client_that_the_proxy_names(header: bytes, expected: bytes) -> None:
    async with serve_node(server=PROXIED, routes=ROUTES) as served_node:
        assert expected in await answer(served_node, header + REQUEST)
        assert expected in await answer(served_node, header, REQUEST)
        single = [header[index : index + 1] for index in range(len(header))]
        assert expected in await answer(served_node, *single, REQUEST)


@pytest.mark.parametrize(
    "sent", [REQUEST, b"PROXY TCP4 203.0.113.7\r\n" + REQUEST, b"\x16\x03\x01" + bytes(50)]
)
async def test_a_connection_that_does_not_begin_with_the_header_is_dropped(sent: bytes) -> None:
    """Nothing is answered, and the metrics count it."""
    async with serve_node(server=PROXIED, routes=ROUTES) as served_node:
        assert await answer(served_node, sent) == b""
        assert of(served_node.node)["tocsin_limits_reached_total{limit=server.proxy_protocol}"] == 1


async def test_a_header_that_does_not_end_is_dropped_after_a_time() -> None:
    async with serve_node(server=PROXIED, client={"stale_timeout": 2 * TICK}) as served_node:
        for sent in (b"", LINE[:20]):
            assert await answer(served_node, sent) == b""


async def test_a_peer_that_is_not_trusted_is_refused() -> None:
    """Although its header is valid: it could name any client."""
    proxies = {**PROXIED, "trusted_proxies": ["192.0.2.1"]}
    async with serve_node(server=proxies, routes=ROUTES) as served_node:
        assert await answer(served_node, LINE + REQUEST) == b""
        assert of(served_node.node)["tocsin_limits_reached_total{limit=server.proxy_protocol}"] == 1


async def test_without_the_option_the_header_is_an_invalid_request() -> None:
    async with serve_node(routes=ROUTES) as served_node:
        assert (await answer(served_node, LINE + REQUEST)).startswith(b"HTTP/1.1 400 ")


@contextlib.asynccontextmanager
async def socket_with(header: bytes, port: int) -> AsyncIterator[socket.socket]:
    """A connection on which the header was sent."""
    with socket.socket() as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, header)
        yield sock


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("is_tls", [False, True])
def test_websockets_and_streams_work_behind_the_header(
    certificate: tuple[str, str], new_loop: Callable[[], asyncio.AbstractEventLoop], is_tls: bool
) -> None:
    """With TLS to the node as well, and in both loops."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_converse(certificate, is_tls))


async def _converse(certificate: tuple[str, str], is_tls: bool) -> None:
    files = {"tls_certificate": certificate[0], "tls_key": certificate[1]} if is_tls else {}
    context = trusting(certificate[0]) if is_tls else None
    async with serve_node(server={**PROXIED, **files}, routes=ROUTES) as served_node:
        async with socket_with(LINE, served_node.port) as sock:
            options: Any = {"ssl": context, "server_hostname": "127.0.0.1"} if is_tls else {}
            async with (
                asyncio.timeout(SOON),
                connect(served_node.websocket_url, sock=sock, **options) as wire,
            ):
                await wire.send('{"id":1,"connect":{}}')
                assert '"connect"' in str(await wire.recv())
        async with socket_with(version_2("203.0.113.7", 4711), served_node.port) as sock:
            reader, writer = await _opened(sock, context)
            writer.write(REQUEST)
            assert b"203.0.113.7" in await asyncio.wait_for(reader.read(), SOON)
            writer.close()
        await served_node.until_empty()


async def _opened(
    sock: socket.socket, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        sock=sock, ssl=context, server_hostname="127.0.0.1" if context else None
    )


async def test_a_tls_handshake_after_the_header_that_does_not_end_is_dropped(
    certificate: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    files = {"tls_certificate": certificate[0], "tls_key": certificate[1]}
    limits = {"stale_timeout": 2 * TICK}
    async with serve_node(server={**PROXIED, **files}, client=limits) as served_node:
        for sent in (LINE, LINE + b"GET / HTTP/1.1\r\n\r\n", LINE + b"\x16\x03\x01\x02\x00\x01"):
            await answer(served_node, sent)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
