"""While a stream opens, what is heard waits, so that its first event is its position in every channel."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Raw

from tests.server.transports.sse.streams import Served, served
from tests.support.timing import SOON
from tests.support.tokens import connection_token
from tocsin_server import errors
from tocsin_server.core.events import ChannelReset, ServerUnsubscribe
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import NewPublication

Name = Callable[[str], str]


class Gate:
    """Lets reads of one channel's log wait until it is opened."""

    def __init__(self, tocsin: Served, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read = tocsin.node.engine.broker.read_history
        self._channel = channel
        self._opened = asyncio.Event()
        self.reached = asyncio.Event()
        monkeypatch.setattr(tocsin.node.engine.broker, "read_history", self.read)

    async def read(self, channel: str, *details: Any) -> History:
        if channel == self._channel:
            self.reached.set()
            await self._opened.wait()
        return await self._read(channel, *details)

    def open(self) -> None:
        self._opened.set()


async def entered(tocsin: Served, channel: str) -> None:
    """Until somebody hears a channel live."""
    async with asyncio.timeout(SOON):
        while not tocsin.node.hub.channels[channel].connections:  # noqa: ASYNC110 - the channel tells nobody
            await asyncio.sleep(0.001)


async def test_what_is_heard_while_another_channel_is_entered_comes_after_the_positions(
    tocsin: Served, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written sooner, its id would lack a position in the other channel, which could be lost then."""
    one, two = channel("log"), channel("log")
    before = await tocsin.publish(two, 1)
    gate = Gate(tocsin, two, monkeypatch)

    async def play() -> None:
        await gate.reached.wait()
        await entered(tocsin, one)
        await tocsin.publish(one, 1)
        (peer,) = tocsin.node.hub
        tocsin.node.handle_event(peer, ChannelReset(one))
        await tocsin.publish(one, 2)
        gate.open()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(play())
        async with tocsin.stream(one, two, begins=False) as stream:
            assert str((await stream.next()).id).endswith(f",1@{before.epoch}")
            events = [await stream.next(), await stream.next()]
    assert [event.data["pub"]["data"] for event in events] == [1, 2]
    assert all(str(event.id).endswith(f",1@{before.epoch}") for event in events)


async def test_a_subscription_ended_while_others_are_entered_is_told_in_its_place(
    tocsin: Served, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the positions, like everything else."""
    one, two = channel("log"), channel("log")
    gate = Gate(tocsin, two, monkeypatch)

    async def play() -> None:
        await gate.reached.wait()
        await entered(tocsin, one)
        await tocsin.order("ann", ServerUnsubscribe(one))
        gate.open()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(play())
        async with tocsin.stream(one, two, token=connection_token("ann")) as stream:
            assert (await stream.next()).kind == "unsubscribe"


async def test_what_waits_while_a_stream_opens_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the limit there is no stream, but an answer: try again."""
    async with served(client={"queue_limit_bytes": 1000}) as tocsin:
        gate = Gate(tocsin, "log:2", monkeypatch)
        asking = asyncio.create_task(tocsin.http.get(tocsin.path("log:1", "log:2")))
        await gate.reached.wait()
        await entered(tocsin, "log:1")
        for _ in range(3):
            await tocsin.node.operations.publish("log:1", NewPublication(Raw(b'"' + b"x" * 500 + b'"')))
        response = await asking
        assert (response.status_code, response.json()["code"]) == (503, 3008)
        gate.open()
        await tocsin.is_empty()


async def test_a_node_that_leaves_meanwhile_says_so(
    tocsin: Served, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, and no stream."""
    news = channel("log")
    gate = Gate(tocsin, news, monkeypatch)
    asking = asyncio.create_task(tocsin.http.get(tocsin.path(news)))
    await gate.reached.wait()
    tocsin.node.disconnect_all(errors.SHUTDOWN)
    response = await asking
    assert (response.status_code, response.json()["code"]) == (503, 3001)
    gate.open()
    await tocsin.is_empty()
