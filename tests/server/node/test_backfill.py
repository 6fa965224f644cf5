"""Backfill: publications that pub/sub lost are read from history, or clients with a position are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import pytest
from msgspec import Raw
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect

from tocsin_server.app import create_app
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ServerOptions
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
    """A memory engine that delivers a publication to the node only if `keeps` says so."""

    def __init__(self, keeps: Callable[[Publication], bool]) -> None:
        super().__init__()
        self._keeps = keeps

    async def start(self, handler: EngineHandler) -> None:
        on_publication = handler.on_publication

        def pass_some(
            channel: str, publication: Publication, epoch: str, published_at: float, *, may_be_delta: bool
        ) -> None:
            if self._keeps(publication):
                on_publication(channel, publication, epoch, published_at, may_be_delta=may_be_delta)

        handler.on_publication = pass_some  # type: ignore[method-assign]
        await super().start(handler)


class Pushed(msgspec.Struct):
    """A message with a push."""

    push: dict[str, Any]


class SubscribedClient:
    """A client that has subscribed, and receives pushes."""

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


def serving_lossy(
    keeps: Callable[[Publication], bool], channel: str
) -> AbstractAsyncContextManager[tuple[Node, SubscribedClient]]:
    return serving_engine(LossyEngine(keeps), channel)


@asynccontextmanager
async def serving_engine(engine: MemoryEngine, channel: str) -> AsyncIterator[tuple[Node, SubscribedClient]]:
    app = create_app(SETTINGS, engine=engine)
    async with serving(app, SETTINGS.server), subscribed(app.state.node, channel) as client:
        yield app.state.node, client


@asynccontextmanager
async def subscribed(node: Node, channel: str, more: str = "") -> AsyncIterator[SubscribedClient]:
    async with connect(f"ws://{node.address}/connection/websocket") as socket:
        subscribe = f'{{"id":2,"subscribe":{{"channel":"{channel}"{more}}}}}'
        await socket.send('{"id":1,"connect":{}}\n' + subscribe)
        while b'"id":2' not in await socket.recv(decode=False):
            pass
        yield SubscribedClient(socket)


async def publish(node: Node, channel: str, *numbers: int) -> None:
    for number in numbers:
        await node.operations.publish(channel, NewPublication(Raw(str(number).encode())))


@pytest.mark.parametrize("channel", ["news", "plain:news"])
async def test_a_lost_publication_is_read_from_history_after_the_next_one(channel: str) -> None:
    async with serving_lossy(lambda publication: publication.offset not in (2, 3), channel) as (node, client):
        await publish(node, channel, 1, 2, 3, 4, 5)
        assert await client.data(5) == [1, 2, 3, 4, 5]


async def test_a_lost_last_publication_is_read_after_a_resubscribe() -> None:
    async with serving_lossy(lambda publication: publication.offset == 1, "news") as (node, client):
        await publish(node, "news", 1, 2, 3)
        node.engine_callbacks.on_resubscribed(["news", "a channel without subscribers"])
        assert await client.data(3) == [1, 2, 3]


async def test_losses_during_a_backfill_are_filled_too() -> None:
    async with serving_lossy(lambda publication: publication.offset % 2 == 0, "news") as (node, client):
        for number in range(1, 21):
            await publish(node, "news", number)
            if number % 4 == 0:
                await asyncio.sleep(0)
        assert await client.data(20) == list(range(1, 21))


async def test_a_gap_that_history_cannot_fill_ends_a_subscription_with_a_position() -> None:
    async with serving_lossy(lambda publication: publication.offset in (1, 10), "news") as (node, client):
        await publish(node, "news", *range(1, 11))
        assert await client.data(1) == [1]
        push = await client.next_push()
        assert push == {"channel": "news", "unsubscribe": {"code": 2500, "reason": "insufficient state"}}


async def test_a_gap_is_logged_with_both_positions_as_arrays() -> None:
    """The offset and the epoch of what was received last, and of what history no longer holds."""
    async with serving_lossy(lambda publication: publication.offset in (1, 10), "news") as (node, client):
        with capture_logs() as log_lines:
            await publish(node, "news", *range(1, 11))
            await client.data(1)
            await client.next_push()
        epoch = (await node.operations.history("news", 0, None, is_reverse=False)).epoch
    (line,) = (log_line for log_line in log_lines if log_line["event"] == "history_gap")
    assert json.loads(json.dumps([line["after"], line["up_to"]])) == [[1, epoch], [5, epoch]]


async def test_a_subscription_without_a_position_continues_after_a_gap() -> None:
    async with serving_lossy(lambda publication: publication.offset in (1, 10), "plain:news") as (
        node,
        client,
    ):
        await publish(node, "plain:news", *range(1, 11))
        assert await client.data(6) == [1, 6, 7, 8, 9, 10], "history keeps five"
        assert node.metrics.gaps.count == 0, "the client is told of no gap"


class SlowEngine(LossyEngine):
    """An engine whose read with the number `slow` waits for `answer`; `reads` counts all reads."""

    def __init__(self, slow: int) -> None:
        super().__init__(lambda _: True)
        self.reads = 0
        self._slow = slow
        self._answered = asyncio.Condition()
        self._read = self.broker.read_history
        self.broker.read_history = self._read_slowly  # type: ignore[method-assign]
        self.broker.read_history_now = lambda *_: None  # type: ignore[method-assign, assignment]

    async def _read_slowly(self, channel: str, query: HistoryQuery, options: ChannelOptions) -> History:
        self.reads += 1
        is_slow = self.reads == self._slow
        history = await self._read(channel, query, options)
        if is_slow:
            async with self._answered:
                await self._answered.wait()
        return history

    async def until_reads(self, number: int) -> None:
        """Wait for this number of reads."""
        async with asyncio.timeout(SECONDS):
            while self.reads < number:  # noqa: ASYNC110 - no event is set
                await asyncio.sleep(0)

    def remove_history(self, channel: str) -> None:
        """Remove the history of a channel."""
        del self.broker._histories._histories[channel]
        self.broker._histories._initial_epochs.clear()

    async def answer(self) -> None:
        """Answer the slow read, with the history of the moment at which it began."""
        async with self._answered:
            self._answered.notify_all()


async def run_event_loop() -> None:
    """Run the event loop until every task that is due has run."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_channel_that_received_more_than_was_read_is_not_read_again() -> None:
    """This is usual in a channel with many publications."""
    engine = SlowEngine(slow=2)
    async with serving_engine(engine, "news") as (node, client):
        node.engine_callbacks.on_resubscribed(["news"])
        await engine.until_reads(2)
        await publish(node, "news", 1, 2)
        assert await client.data(2) == [1, 2]
        await engine.answer()
        await run_event_loop()
        assert engine.reads == 2


async def test_a_replaced_history_that_a_subscribe_found_is_not_delivered_twice() -> None:
    """The backfill that reads it is slower than the subscribe, which moved the channel to it already."""
    engine = SlowEngine(slow=2)
    async with serving_engine(engine, "plain:news") as (node, client):
        await publish(node, "plain:news", 1, 2)
        engine.remove_history("plain:news")
        node.engine_callbacks.on_resubscribed(["plain:news"])
        await engine.until_reads(2)
        async with subscribed(node, "plain:news", ',"positioned":true') as other_client:
            await publish(node, "plain:news", 3)
            await other_client.next_push()
            await engine.answer()
            await run_event_loop()
            await publish(node, "plain:news", 4)
            assert await client.data(4) == [1, 2, 3, 4]


async def test_a_lost_last_publication_is_found_by_a_check_of_the_top(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LossyEngine, "may_lose_messages", True)
    monkeypatch.setattr(backfill, "TOP_CHECK_SECONDS", 0.2)
    async with serving_lossy(lambda publication: publication.offset == 1, "news") as (node, client):
        await publish(node, "news", 1, 2, 3)
        assert await client.data(3) == [1, 2, 3]
