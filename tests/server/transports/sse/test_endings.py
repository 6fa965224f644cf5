"""How event streams end: told why and when to come back, or gone without a word."""

import asyncio
import socket
from collections.abc import Callable

import httpx
import pytest
from msgspec import Raw

from tests.server.transports.sse.streams import Event, Served, served
from tests.support.timing import SOON
from tests.support.tokens import connection_token
from tocsin_server import errors
from tocsin_server.core.events import ServerDisconnect
from tocsin_server.engine.broker import NewPublication
from tocsin_server.errors import Disconnect
from tocsin_server.transports.sse.connection import RETRY_MILLISECONDS

Name = Callable[[str], str]


@pytest.mark.parametrize("why", [errors.SHUTDOWN, errors.CONNECTION_EXPIRED, Disconnect(4001, "moved")])
async def test_a_client_that_may_come_back_keeps_its_position(
    tocsin: Served, channel: Name, why: Disconnect
) -> None:
    """It is told why it has to go; when to come back it has known since the beginning."""
    news = channel("log")
    async with tocsin.stream(news, token=connection_token("ann")) as stream:
        await tocsin.publish(news, 1)
        assert await stream.numbers(1) == [1]
        await tocsin.order("ann", ServerDisconnect(why))
        (last,) = await stream.rest()
    assert last == Event("disconnect", {"code": why.code, "reason": why.reason})
    assert stream.last_id.startswith("1@")


async def test_a_crowd_that_comes_back_is_spread(tocsin: Served) -> None:
    """Each is told another time when its stream opens, since a node that dies says nothing any more."""
    retries = []
    for _ in range(5):
        async with tocsin.stream("lobby") as stream:
            retries.append(stream.retry)
    earliest, latest = RETRY_MILLISECONDS
    assert earliest <= min(retries) < max(retries) <= latest


@pytest.mark.parametrize("why", [errors.FORCE_DISCONNECT, Disconnect(4500, "banned")])
async def test_a_client_sent_away_for_good_stops_by_itself(
    tocsin: Served, channel: Name, why: Disconnect
) -> None:
    """An EventSource comes back whatever it is told, but brings the id that says so, and 204 stops it."""
    news = channel("log")
    async with tocsin.stream(news, token=connection_token("ann")) as stream:
        await tocsin.order("ann", ServerDisconnect(why))
        (last,) = await stream.rest()
    farewell = f"disconnect:{why.code}"
    assert last == Event("disconnect", {"code": why.code, "reason": why.reason}, farewell)
    header = {"Last-Event-ID": farewell}
    again = await tocsin.http.get(tocsin.path(news, token=connection_token("ann")), headers=header)
    assert (again.status_code, again.content) == (204, b"")
    assert (await tocsin.http.get(tocsin.path(news, last_event_id=farewell))).status_code == 204
    async with tocsin.stream(news, token=connection_token("ann")):
        pass  # a new EventSource, which an application makes knowingly, is served


async def test_a_client_that_vanishes_is_missed_at_once(tocsin: Served, channel: Name) -> None:
    """Its presence goes long before anything would be written to it."""
    room = channel("seen")
    async with tocsin.stream(room) as watcher, tocsin.stream(room, token=connection_token("ann")) as ann:
        assert [(await watcher.next()).kind for _ in range(2)] == ["join", "join"]
        ann.abort()
        async with asyncio.timeout(SOON):
            left = await watcher.next()
        assert (left.kind, left.data["leave"]["info"]["user"]) == ("leave", "ann")
        assert (await tocsin.node.operations.presence_stats(room)).num_clients == 1


async def test_a_client_that_says_goodbye_is_missed_at_once(tocsin: Served, channel: Name) -> None:
    """Closing the response closes the connection, which is all the goodbye there is."""
    room = channel("seen")
    async with tocsin.stream(room) as watcher:
        async with tocsin.http.stream("GET", tocsin.path(room)) as response:
            assert response.status_code == 200
            assert [(await watcher.next()).kind for _ in range(2)] == ["join", "join"]
        async with asyncio.timeout(SOON):
            assert (await watcher.next()).kind == "leave"


async def test_a_connection_may_ask_again_after_its_stream_ended(tocsin: Served) -> None:
    """The response is complete, so the same connection serves the next request."""
    url = httpx.URL(tocsin.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    for _ in range(2):
        writer.write(b"GET /events?channel=lobby HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(SOON):
            await reader.readuntil(b"id: ")
            tocsin.node.disconnect_all(errors.SHUTDOWN)
            await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_does_not_read_is_dropped_and_delays_nobody() -> None:
    """What waits for it is bounded in bytes; past that it is told that it is slow, if it ever reads again."""
    limit = 100_000
    async with served(client={"queue_limit_bytes": limit}) as tocsin:
        url = httpx.URL(tocsin.url)
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, (url.host, url.port))
            await loop.sock_sendall(slow, b"GET /events?channel=log:1 HTTP/1.1\r\nHost: x\r\n\r\n")
            async with tocsin.stream("log:1") as stream:
                number = 0
                while 'code="3008"' not in tocsin.node.metrics.page().decode():
                    number += 1
                    filler = Raw(b'"' + b"x" * 20_000 + b'"')
                    await tocsin.node.operations.publish("log:1", NewPublication(filler))
                    assert (await stream.message())["pub"]["offset"] == number
                    assert number * 20_000 < 100 * limit, "never dropped"
                assert len(tocsin.node.hub) == 1
                received = b""
                while b"event: disconnect" not in received:
                    async with asyncio.timeout(SOON):
                        received += await loop.sock_recv(slow, 65536)
                assert b'data: {"code":3008,"reason":"slow"}' in received
                await tocsin.node.operations.publish("log:1", NewPublication(Raw(b"1")))
                assert (await stream.message())["pub"]["offset"] == number + 1


async def test_a_recovery_may_be_larger_than_what_may_wait() -> None:
    """A client closed for it would come back for the same, for ever."""
    async with served(client={"queue_limit_bytes": 1000}) as tocsin:
        filler = NewPublication(Raw(b'"' + b"x" * 900 + b'"'))
        for _ in range(10):
            await tocsin.node.operations.publish("log:1", filler)
        async with tocsin.stream("log:1", last_event_id="0@") as stream:
            assert [(await stream.message())["pub"]["offset"] for _ in range(10)] == list(range(1, 11))
            await tocsin.node.operations.publish("log:1", filler)
            assert (await stream.message())["pub"]["offset"] == 11


async def test_two_servers_in_one_process_do_not_touch_each_other() -> None:
    """One stops and sends its streams away; those of the other go on, and new ones open."""
    async with served() as staying:
        async with staying.stream("lobby") as stream:
            async with served() as leaving:
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
