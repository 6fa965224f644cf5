"""What announcements did not bring is read from the log, or whoever follows positions is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from websockets.asyncio.client import ClientConnection, connect

from tocsin_server import mending
from tocsin_server.app import create_app
from tocsin_server.cluster.broker import Draft
from tocsin_server.cluster.engine import Resident
from tocsin_server.cluster.memory.engine import MemoryEngine
from tocsin_server.config import Settings
from tocsin_server.core.protocol import Publication
from tocsin_server.node import Node
from tocsin_server.options import ChannelOptions, ClientOptions, ServerOptions
from tocsin_server.serving import serving

SECONDS = 10
CHANNEL = ChannelOptions(history_size=5, history_ttl=300, force_recovery=True)
PLAIN = ChannelOptions(history_size=5, history_ttl=300)
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

    async def start(self, resident: Resident) -> None:
        hear = resident.hear

        def hear_some(channel: str, publication: Publication, epoch: str, published_at: float) -> None:
            if self._keeps(publication):
                hear(channel, publication, epoch, published_at)

        resident.hear = hear_some  # type: ignore[method-assign]
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


@asynccontextmanager
async def listening(
    keeps: Callable[[Publication], bool], channel: str
) -> AsyncIterator[tuple[Node, Listener]]:
    app = create_app(SETTINGS, engine=LossyEngine(keeps))
    async with serving(app, SETTINGS.server) as server:
        url = server.url.replace("http", "ws") + "/connection/websocket"
        async with connect(url) as socket:
            subscribe = f'{{"id":2,"subscribe":{{"channel":"{channel}"}}}}'
            await socket.send('{"id":1,"connect":{}}\n' + subscribe)
            while b'"id":2' not in await socket.recv(decode=False):
                pass
            yield app.state.node, Listener(socket)


async def publish(node: Node, channel: str, *numbers: int) -> None:
    for number in numbers:
        await node.publish(channel, Draft(Raw(str(number).encode())))


@pytest.mark.parametrize("channel", ["news", "plain:news"])
async def test_a_lost_announcement_is_read_from_the_log_once_the_next_one_is_heard(channel: str) -> None:
    async with listening(lambda publication: publication.offset not in (2, 3), channel) as (node, listener):
        await publish(node, channel, 1, 2, 3, 4, 5)
        assert await listener.data(5) == [1, 2, 3, 4, 5]


async def test_a_lost_last_announcement_is_read_once_the_link_is_said_to_be_whole_again() -> None:
    async with listening(lambda publication: publication.offset == 1, "news") as (node, listener):
        await publish(node, "news", 1, 2, 3)
        node.resume(["news", "a channel nobody hears"])
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


async def test_a_lost_last_announcement_is_found_by_looking_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LossyEngine, "may_lose_announcements", True)
    monkeypatch.setattr(mending, "PATROL_SECONDS", 0.2)
    async with listening(lambda publication: publication.offset == 1, "news") as (node, listener):
        await publish(node, "news", 1, 2, 3)
        assert await listener.data(3) == [1, 2, 3]
