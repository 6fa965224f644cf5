"""While a stream opens, messages are held, so its first event has a position in every channel."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from msgspec import Raw

from tests.server.served_node import until
from tests.server.transports.sse.stream_server import StreamServer, stream_server
from tests.support.timing import SOON, TICK
from tests.support.tokens import connection_token
from tocsin_server import errors
from tocsin_server.core.events import ChannelReset, ServerUnsubscribe
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import NewPublication

Name = Callable[[str], str]


class Gate:
    """Holds reads of one channel's history until it is opened."""

    def __init__(self, server: StreamServer, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read = server.node.engine.broker.read_history
        self._channel = channel
        self._opened = asyncio.Event()
        self.reached = asyncio.Event()
        monkeypatch.setattr(server.node.engine.broker, "read_history", self.read)
        monkeypatch.setattr(server.node.engine.broker, "read_history_now", lambda *_: None)

    async def read(self, channel: str, *details: Any) -> History:
        if channel == self._channel:
            self.reached.set()
            await self._opened.wait()
        return await self._read(channel, *details)

    def open(self) -> None:
        self._opened.set()


async def until_live(server: StreamServer, channel: str) -> None:
    """Wait until a channel has a live subscriber."""
    async with asyncio.timeout(SOON):
        while not server.node.hub.channels[channel].connections:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)


async def test_publications_during_the_opening_come_after_the_positions(
    server: StreamServer, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written sooner, their ids would lack the other channel's position, and it could not recover."""
    one, two = channel("history"), channel("history")
    before = await server.publish(two, 1)
    gate = Gate(server, two, monkeypatch)

    async def act() -> None:
        await gate.reached.wait()
        await until_live(server, one)
        await server.publish(one, 1)
        (connection,) = server.node.hub
        server.node.handle_event(connection, ChannelReset(one))
        await server.publish(one, 2)
        gate.open()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(act())
        async with server.stream(one, two, begins=False) as stream:
            assert str((await stream.next()).id).endswith(f",1@{before.epoch}")
            events = [await stream.next(), await stream.next()]
    assert [event.data["pub"]["data"] for event in events] == [1, 2]
    assert all(str(event.id).endswith(f",1@{before.epoch}") for event in events)


async def test_an_unsubscribe_during_the_opening_comes_after_the_positions(
    server: StreamServer, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an event of the stream, like any later one."""
    one, two = channel("history"), channel("history")
    gate = Gate(server, two, monkeypatch)

    async def act() -> None:
        await gate.reached.wait()
        await until_live(server, one)
        await server.control("ann", ServerUnsubscribe(one))
        gate.open()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(act())
        async with server.stream(one, two, token=connection_token("ann")) as stream:
            assert (await stream.next()).kind == "unsubscribe"


async def test_held_messages_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the queue limit the request is answered with 503 instead of a stream."""
    async with stream_server(client={"queue_limit_bytes": 1000}) as server:
        gate = Gate(server, "history:2", monkeypatch)
        request = asyncio.create_task(server.http.get(server.path("history:1", "history:2")))
        await gate.reached.wait()
        await until_live(server, "history:1")
        for _ in range(3):
            await server.node.operations.publish("history:1", NewPublication(Raw(b'"' + b"x" * 500 + b'"')))
            await asyncio.sleep(TICK)  # a batch of its own
        response = await request
        assert (response.status_code, response.json()["code"]) == (503, 3008)
        gate.open()
        await server.until_empty()


async def test_a_node_that_stops_during_the_opening_answers_503(
    server: StreamServer, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body has the code of the disconnect."""
    news = channel("history")
    gate = Gate(server, news, monkeypatch)
    request = asyncio.create_task(server.http.get(server.path(news)))
    await gate.reached.wait()
    server.node.disconnect_all(errors.SHUTDOWN)
    response = await request
    assert (response.status_code, response.json()["code"]) == (503, 3001)
    gate.open()
    await server.until_empty()


async def test_a_client_that_disconnects_during_the_opening_is_lost_at_once(
    server: StreamServer, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it waits for, such as a hook, may take long."""
    name = channel("history")
    gate = Gate(server, name, monkeypatch)
    url = httpx.URL(server.url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {server.path(name)} HTTP/1.1\r\nHost: {url.host}\r\n\r\n".encode())
    await gate.reached.wait()
    (connection,) = server.node.hub
    writer.close()
    async with asyncio.timeout(SOON):
        while not connection.session.is_closed:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
    assert len(server.node.hub) == 0
    gate.open()
    await server.until_empty()
    await until(lambda: server.node.admission.count == 0)
