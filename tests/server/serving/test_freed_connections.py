"""What a connection held is freed when it ends, without the garbage collector, which would pause the node."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import uvloop

from tests.server.served_node import is_settled, serve_node, serve_node_over_tls, until
from tests.support.raw_connection import HANDSHAKE, frame
from tests.support.timing import SOON, TICK
from tocsin_server.serving.first_request import HANDSHAKE_BYTES

COMMANDS = """\
{"id":1,"connect":{}}
{"id":2,"subscribe":{"channel":"log:a"}}
{"id":3,"publish":{"channel":"log:a","data":1}}"""

CONNECTIONS = {
    "silent": b"",
    "response": b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n",
    "half a body": b"POST /health/live HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n{",
    "invalid request": b"nonsense\r\n\r\n",
    "API call": b"POST /api/info HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n{}",
    "event stream": b"GET /events?channel=log:a HTTP/1.1\r\nHost: here\r\n\r\n",
    "HTTP stream": b"POST /connection/http_stream HTTP/1.1\r\nHost: here\r\nContent-Length: 21\r\n\r\n"
    b'{"id":1,"connect":{}}',
    "WebSocket": HANDSHAKE + frame(COMMANDS),
    "WebSocket with an invalid command": HANDSHAKE + frame("nonsense"),
    "WebSocket with an invalid frame": HANDSHAKE + frame("text", reserved=7),
    "invalid handshake": HANDSHAKE.replace(b"Sec-WebSocket-Key", b"Key"),
    "large invalid handshake": HANDSHAKE.replace(
        b"Sec-WebSocket-Key", b"Cookie: %b\r\nKey" % (b"x" * HANDSHAKE_BYTES)
    ),
}

COUNTED = {
    "AcceptedConnection",
    "FirstRequest",
    "FrameProtocol",
    "HttpProtocol",
    "RequestResponseCycle",
    "Session",
    "WebSocketConnection",
}
"""The classes of which one connection has at most a few objects, each with dozens of others."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # other tests' objects are not counted
    gc.disable()
    yield
    gc.enable()


def _held() -> Counter[str]:
    names = (type(found).__name__ for found in gc.get_objects())
    return Counter(name for name in names if name in COUNTED)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("sent", CONNECTIONS.values(), ids=CONNECTIONS.keys())
def test_a_connection_that_ended_is_freed(sent: bytes) -> None:
    """On uvloop, as servers run: asyncio's own transports have cycles of their own."""
    uvloop.run(_connect_and_leave(sent))


async def _connect_and_leave(sent: bytes) -> None:
    async with serve_node() as served_node:
        assert not _held()
        async with served_node.tcp() as (connection, _):
            await connection.send(sent)
            if sent:
                await connection.read_some()
                await until(lambda: is_settled(served_node.node))
        await _until_freed()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("is_admin", [False, True], ids=["public", "admin"])
@pytest.mark.parametrize("is_silent", [False, True], ids=["no TLS", "lost"])
def test_a_connection_whose_tls_handshake_fails_is_freed(
    certificate: tuple[str, str], *, is_admin: bool, is_silent: bool
) -> None:
    """On either address, whether the client sends something else or leaves."""
    uvloop.run(_fail_a_handshake(*certificate, is_admin=is_admin, is_silent=is_silent))


async def _fail_a_handshake(certificate: str, key: str, *, is_admin: bool, is_silent: bool) -> None:
    admin = {"host": "127.0.0.1", "port": 0, "tls_certificate": certificate, "tls_key": key}
    async with serve_node_over_tls(certificate, key, admin=admin) as served_node:
        server = served_node.server
        url = urlsplit(server.admin_url if is_admin else server.url)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        await until(lambda: "AcceptedConnection" in _held())
        if not is_silent:
            writer.write(b"no TLS" * 10)
            await reader.read()
        writer.close()
        await _until_freed()


async def _until_freed() -> None:
    async with asyncio.timeout(SOON):
        while _held():  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(TICK)
