"""How event streams end: with a disconnect event, or because the client disconnects."""

import asyncio
import socket
from collections.abc import Callable

import httpx
import pytest
from msgspec import Raw

from tests.server.transports.sse.stream_server import Event, StreamServer, stream_server
from tests.support.timing import SOON, TICK
from tests.support.tokens import connection_token
from tocsin_server import errors
from tocsin_server.core.events import ServerDisconnect
from tocsin_server.engine.broker import NewPublication
from tocsin_server.errors import Disconnect
from tocsin_server.transports.sse.connection import RETRY_MILLISECONDS

Name = Callable[[str], str]


@pytest.mark.parametrize("why", [errors.SHUTDOWN, errors.CONNECTION_EXPIRED, Disconnect(4001, "moved")])
async def test_a_client_that_may_reconnect_keeps_its_position(
    server: StreamServer, channel: Name, why: Disconnect
) -> None:
    """The disconnect event has no id, so the id before it stays."""
    news = channel("history")
    async with server.stream(news, token=connection_token("ann")) as stream:
        await server.publish(news, 1)
        assert await stream.numbers(1) == [1]
        await server.control("ann", ServerDisconnect(why))
        (last,) = await stream.rest()
    assert last == Event("disconnect", {"code": why.code, "reason": why.reason})
    assert stream.last_id.startswith("1@")


async def test_reconnects_are_spread_over_time(server: StreamServer) -> None:
    """Each stream gets a time of its own when it opens, since a node that dies cannot send one."""
    retries = []
    for _ in range(5):
        async with server.stream("lobby") as stream:
            retries.append(stream.retry)
    earliest, latest = RETRY_MILLISECONDS
    assert earliest <= min(retries) < max(retries) <= latest


@pytest.mark.parametrize("why", [errors.FORCE_DISCONNECT, Disconnect(4500, "banned")])
async def test_a_client_that_must_not_reconnect_gets_204(
    server: StreamServer, channel: Name, why: Disconnect
) -> None:
    """An EventSource reconnects in any case, with the id of the disconnect event, and 204 stops it."""
    news = channel("history")
    async with server.stream(news, token=connection_token("ann")) as stream:
        await server.control("ann", ServerDisconnect(why))
        (last,) = await stream.rest()
    last_id = f"disconnect:{why.code}"
    assert last == Event("disconnect", {"code": why.code, "reason": why.reason}, last_id)
    header = {"Last-Event-ID": last_id}
    again = await server.http.get(server.path(news, token=connection_token("ann")), headers=header)
    assert (again.status_code, again.content) == (204, b"")
    assert (await server.http.get(server.path(news, last_event_id=last_id))).status_code == 204
    async with server.stream(news, token=connection_token("ann")):
        pass  # a new EventSource has no last event id


async def test_a_client_that_aborts_leaves_its_channels_at_once(server: StreamServer, channel: Name) -> None:
    """Its presence ends long before the next write would fail."""
    room = channel("seen")
    async with server.stream(room) as watcher, server.stream(room, token=connection_token("ann")) as ann:
        assert [(await watcher.next()).kind for _ in range(2)] == ["join", "join"]
        ann.abort()
        async with asyncio.timeout(SOON):
            left = await watcher.next()
        assert (left.kind, left.data["leave"]["info"]["user"]) == ("leave", "ann")
        assert (await server.node.operations.presence_stats(room)).num_clients == 1


async def test_a_client_that_closes_its_response_leaves_its_channels_at_once(
    server: StreamServer, channel: Name
) -> None:
    """Closing the response closes the connection; HTTP has no other sign."""
    room = channel("seen")
    async with server.stream(room) as watcher:
        async with server.http.stream("GET", server.path(room)) as response:
            assert response.status_code == 200
            assert [(await watcher.next()).kind for _ in range(2)] == ["join", "join"]
        async with asyncio.timeout(SOON):
            assert (await watcher.next()).kind == "leave"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_an_http_connection_ends_with_its_stream(server: StreamServer, version: str) -> None:
    """The response says so once. HTTP/1.0 has no chunks (RFC 9112 §6.1): there the end is the only sign."""
    url = httpx.URL(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET /events?channel=lobby HTTP/{version}\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(SOON):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readuntil(b"id: ")
        server.node.disconnect_all(errors.SHUTDOWN)
        rest = await reader.read()
    assert head.count(b"\r\nconnection:") == head.count(b"\r\nconnection: close\r\n") == 1
    is_chunked = version == "1.1"
    assert (b"transfer-encoding: chunked" in head) is is_chunked
    assert rest.endswith(b"}\n\n\r\n0\r\n\r\n" if is_chunked else b"}\n\n")
    writer.close()
    await writer.wait_closed()


async def test_a_slow_client_is_disconnected_and_delays_no_other_client() -> None:
    """Past the queue limit it gets a disconnect event, if it reads again."""
    limit = 100_000
    async with stream_server(client={"queue_limit_bytes": limit}) as server:
        url = httpx.URL(server.url)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, (url.host, url.port))
            await loop.sock_sendall(slow, b"GET /events?channel=history:1 HTTP/1.1\r\nHost: x\r\n\r\n")
            async with server.stream("history:1") as stream:
                number = 0
                while 'code="3008"' not in server.node.metrics.page().decode():
                    number += 1
                    filler = Raw(b'"' + b"x" * 20_000 + b'"')
                    await server.node.operations.publish("history:1", NewPublication(filler))
                    assert (await stream.message())["pub"]["offset"] == number
                    assert number * 20_000 < 100 * limit, "never disconnected"
                assert len(server.node.hub) == 1
                received = b""
                while b"event: disconnect" not in received:
                    async with asyncio.timeout(SOON):
                        received += await loop.sock_recv(slow, 65536)
                assert b'data: {"code":3008,"reason":"slow"}' in received
                await server.node.operations.publish("history:1", NewPublication(Raw(b"1")))
                assert (await stream.message())["pub"]["offset"] == number + 1


async def test_one_publication_larger_than_the_queue_limit_does_not_make_its_client_slow() -> None:
    """Neither alone nor with a small one after it."""
    async with stream_server(client={"queue_limit_bytes": 1000}) as server, server.stream("lobby") as stream:
        large = NewPublication(Raw(b'"' + b"x" * 2_000_000 + b'"'))
        await server.node.operations.publish("lobby", large)
        await asyncio.sleep(0)
        await server.publish("lobby", 2)
        assert len((await stream.message())["pub"]["data"]) == 2_000_000
        assert await stream.numbers(1) == [2]


async def test_a_client_that_takes_nothing_between_two_comments_is_disconnected() -> None:
    """With 3012, however little is queued for it. It is gone, or its host's socket would notice that."""
    async with stream_server(client={"ping_interval": 2 * TICK, "pong_timeout": TICK}) as server:
        url = httpx.URL(server.url)
        loop = asyncio.get_running_loop()
        with socket.socket() as silent:
            silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            silent.setblocking(False)
            await loop.sock_connect(silent, (url.host, url.port))
            await loop.sock_sendall(silent, b"GET /events?channel=seen:1 HTTP/1.1\r\nHost: x\r\n\r\n")
            async with server.stream("seen:1", token=connection_token("ann")) as stream:
                large = NewPublication(Raw(b'"' + b"x" * 8_000_000 + b'"'))
                await server.node.operations.publish("seen:1", large)
                while (event := await stream.next()).kind != "leave":
                    assert event.kind in ("join", "message")
        assert 'code="3012"' in server.node.metrics.page().decode()


async def test_a_recovery_may_be_larger_than_the_queue_limit() -> None:
    """A client disconnected for it would only recover the same again."""
    async with stream_server(client={"queue_limit_bytes": 1000}) as server:
        filler = NewPublication(Raw(b'"' + b"x" * 900 + b'"'))
        for _ in range(10):
            await server.node.operations.publish("history:1", filler)
        async with server.stream("history:1", last_event_id="0@") as stream:
            assert [(await stream.message())["pub"]["offset"] for _ in range(10)] == list(range(1, 11))
            await server.node.operations.publish("history:1", filler)
            assert (await stream.message())["pub"]["offset"] == 11


async def test_two_servers_in_one_process_do_not_affect_each_other() -> None:
    """One stops and ends its streams; those of the other continue, and new ones open."""
    async with stream_server() as staying:
        async with staying.stream("lobby") as stream:
            async with stream_server() as leaving:
                url = httpx.URL(leaving.url)
                reader, writer = await asyncio.open_connection(url.host, url.port)
                writer.write(b"GET /events?channel=lobby HTTP/1.0\r\n\r\n")
                await reader.readuntil(b"id:")
            rest = (await reader.read()).decode()
            writer.close()
            assert "event: disconnect" in rest
            assert '"code":3001' in rest
            await staying.publish("lobby", 1)
            assert await stream.numbers(1) == [1]
        async with staying.stream("lobby") as stream:
            await staying.publish("lobby", 2)
            assert await stream.numbers(1) == [2]
