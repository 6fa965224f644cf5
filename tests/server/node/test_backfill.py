"""What announcements did not bring is read from the log, or whoever follows positions is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from websockets.asyncio.client import ClientConnection, connect

from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ChannelOptions, ClientOptions, ServerOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.engine.engine import EngineHandler
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.node import backfill
from tocsin_server.node.node import Node
from tocsin_server.protocol.messages import Publication
from tocsin_server.serving.server import serving

SECONDS = 10
CHANNEL = ChannelOptions(history_size=5, history_ttl=300, force_recovery=True)
PLAIN = ChannelOptions(history_size=5, history_ttl=300, allow_positioning=True)
SETTINGS = Settings(
    server=ServerOptions(port=0),
    client=ClientOptions(insecure=True),
    channels=CHANNEL,
    namespaces={"plain": PLAIN},
)


class LossyEngine(MemoryEngine):
    """A real engine whose announcements pass through `keeps`, which may drop them."""

    def __init__(self, keeps: Callable[[Publication], bool]) -> None:
        super().__init__()
        self._keeps = keeps

    async def start(self, resident: EngineHandler) -> None:
        hear = resident.on_publication

        def hear_some(channel: str, publication: Publication, epoch: str, published_at: float) -> None:
            if self._keeps(publication):
                hear(channel, publication, epoch, published_at)

        resident.on_publication = hear_some  # type: ignore[method-assign]
        await super().start(resident)


class Pushed(msgspec.Struct):
    """What a line says."""

    push: dict[str, Any]


class Listener:
    """A client that has subscribed and reads on."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._lines: list[bytes] = []

    async def next_push(self) -> dict[str, Any]:
        async with asyncio.timeout(SECONDS):
            while True:
                while not self._lines:
                    message = await self._socket.recv(decode=False)
                    self._lines = [line for line in message.split(b"\n") if line.startswith(b'{"push"')]
                return msgspec.json.decode(self._lines.pop(0), type=Pushed).push

    async def data(self, count: int) -> list[object]:
        return [(await self.next_push())["pub"]["data"] for _ in range(count)]


def listening(
    keeps: Callable[[Publication], bool], channel: str
) -> AbstractAsyncContextManager[tuple[Node, Listener]]:
    return listening_to(LossyEngine(keeps), channel)


@asynccontextmanager
async def listening_to(engine: MemoryEngine, channel: str) -> AsyncIterator[tuple[Node, Listener]]:
    app = create_app(SETTINGS, engine=engine)
    async with serving(app, SETTINGS.server), subscribed(app.state.node, channel) as listener:
        yield app.state.node, listener


@asynccontextmanager
async def subscribed(node: Node, channel: str, more: str = "") -> AsyncIterator[Listener]:
    async with connect(f"ws://{node.address}/connection/websocket") as socket:
        subscribe = f'{{"id":2,"subscribe":{{"channel":"{channel}"{more}}}}}'
        await socket.send('{"id":1,"connect":{}}\n' + subscribe)
        while b'"id":2' not in await socket.recv(decode=False):
            pass
        yield Listener(socket)


async def publish(node: Node, channel: str, *numbers: int) -> None:
    for number in numbers:
        await node.publish(channel, NewPublication(Raw(str(number).encode())))


@pytest.mark.parametrize("channel", ["news", "plain:news"])
async def test_a_lost_announcement_is_read_from_the_log_once_the_next_one_is_heard(channel: str) -> None:
    async with listening(lambda publication: publication.offset not in (2, 3), channel) as (node, listener):
        await publish(node, channel, 1, 2, 3, 4, 5)
        assert await listener.data(5) == [1, 2, 3, 4, 5]


async def test_a_lost_last_announcement_is_read_once_the_link_is_said_to_be_whole_again() -> None:
    async with listening(lambda publication: publication.offset == 1, "news") as (node, listener):
        await publish(node, "news", 1, 2, 3)
        node.on_resubscribed(["news", "a channel nobody hears"])
        assert await listener.data(3) == [1, 2, 3]


async def test_losses_while_the_log_is_being_read_are_mended_too() -> None:
    async with listening(lambda publication: publication.offset % 2 == 0, "news") as (node, listener):
        for number in range(1, 21):
            await publish(node, "news", number)
            if number % 4 == 0:
                await asyncio.sleep(0)
        assert await listener.data(20) == list(range(1, 21))


async def test_a_hole_the_log_no_longer_covers_is_told_to_who_follows_positions() -> None:
    async with listening(lambda publication: publication.offset in (1, 10), "news") as (node, listener):
        await publish(node, "news", *range(1, 11))
        assert await listener.data(1) == [1]
        push = await listener.next_push()
        assert push == {"channel": "news", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}


async def test_who_follows_no_positions_hears_on_after_a_hole_the_log_no_longer_covers() -> None:
    async with listening(lambda publication: publication.offset in (1, 10), "plain:news") as (node, listener):
        await publish(node, "plain:news", *range(1, 11))
        assert await listener.data(6) == [1, 6, 7, 8, 9, 10], "the log keeps five"


class SlowEngine(LossyEngine):
    """The read with this number takes until `allow` is called; `reads` counts all."""

    def __init__(self, slow: int) -> None:
        super().__init__(lambda _: True)
        self.reads = 0
        self._slow = slow
        self._answered = asyncio.Condition()
        self._read = self.broker.read_history
        self.broker.read_history = self._read_slowly  # type: ignore[method-assign]

    async def _read_slowly(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        self.reads += 1
        is_slow = self.reads == self._slow
        history = await self._read(channel, query, options)
        if is_slow:
            async with self._answered:
                await self._answered.wait()
        return history

    async def until_asked(self, number: int) -> None:
        """Wait until so many reads were asked for."""
        async with asyncio.timeout(SECONDS):
            while self.reads < number:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0)

    def lose(self, channel: str) -> None:
        """Forget a log."""
        del self.broker._histories._histories[channel]

    async def allow(self) -> None:
        """Let it answer, with what was there when it was asked."""
        async with self._answered:
            self._answered.notify_all()


async def turns() -> None:
    """Let everything happen that is due."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_who_hears_more_than_a_read_brought_does_not_read_on() -> None:
    """As happens all the time in a channel with many publications."""
    engine = SlowEngine(slow=2)
    async with listening_to(engine, "news") as (node, listener):
        node.on_resubscribed(["news"])
        await engine.until_asked(2)
        await publish(node, "news", 1, 2)
        assert await listener.data(2) == [1, 2]
        await engine.allow()
        await turns()
        assert engine.reads == 2


async def test_another_log_that_a_newcomer_found_is_not_begun_twice() -> None:
    """Who reads it for the others is slower than the newcomer, with whom they hear it already."""
    engine = SlowEngine(slow=2)
    async with listening_to(engine, "plain:news") as (node, listener):
        await publish(node, "plain:news", 1, 2)
        engine.lose("plain:news")
        node.on_resubscribed(["plain:news"])
        await engine.until_asked(2)
        async with subscribed(node, "plain:news", ',"positioned":true') as newcomer:
            await publish(node, "plain:news", 3)
            await newcomer.next_push()
            await engine.allow()
            await turns()
            await publish(node, "plain:news", 4)
            assert await listener.data(4) == [1, 2, 3, 4]


async def test_a_lost_last_announcement_is_found_by_looking_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LossyEngine, "may_lose_messages", True)
    monkeypatch.setattr(backfill, "TOP_CHECK_SECONDS", 0.2)
    async with listening(lambda publication: publication.offset == 1, "news") as (node, listener):
        await publish(node, "news", 1, 2, 3)
        assert await listener.data(3) == [1, 2, 3]
