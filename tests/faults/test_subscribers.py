"""Bare subscribers record everything that the server sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.faults import subscribers
from tests.faults.record import Record, SubscriptionRecord, Tally
from tests.faults.subscribers import BareEventStream
from tests.support.tcp import HOST, tcp_server
from tests.support.timing import SOON
from tocsin import Position


class EventStreamServer:
    """A server that sends prepared event streams. All but the last one end.

    `last_ids` are the `Last-Event-ID` headers that it received.
    """

    def __init__(self, *streams: str) -> None:
        self._streams = list(streams)
        self.last_ids: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        _, _, last_id = head.partition("Last-Event-ID: ")
        self.last_ids.append(last_id.partition("\r\n")[0])
        writer.write(f"HTTP/1.1 200 OK\r\n\r\n{self._streams.pop(0)}".encode())
        if not self._streams:
            await reader.read()


def message(channel: str, offset: int, positions: str = "") -> str:
    data = {"channel": channel, "pub": {"offset": offset, "data": {"n": offset, "padding": 100_000 * "x"}}}
    return f"id: {positions or f'{offset}@e'}\ndata: {json.dumps(data)}\n\n"


@contextlib.asynccontextmanager
async def subscribed(
    event_server: EventStreamServer,
    subscriber: BareEventStream,
    subscriptions: Sequence[SubscriptionRecord],
) -> AsyncIterator[None]:
    async with tcp_server(event_server.handle) as port:
        task = asyncio.create_task(subscriber.subscribe(f"http://{HOST}:{port}", subscriptions))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def wait_until_received(subscription: SubscriptionRecord, position: Position) -> None:
    """Wait until a subscription has reached a position."""
    reached = asyncio.Event()
    subscription.call_when_reached(position, reached.set)
    async with asyncio.timeout(SOON):
        await reached.wait()


@pytest.fixture
def record() -> Record:
    return Record()


async def test_an_event_that_comes_twice_or_late_is_recorded(record: Record) -> None:
    """Also when its line is longer than the default limit of a reader."""
    news = SubscriptionRecord(record, "news")
    offsets = (1, 2, 2, 3, 1, 5, 4, 6)
    event_server = EventStreamServer(
        "id: 0@e\nretry: 500\n\n" + "".join(message("news", offset) for offset in offsets)
    )
    async with subscribed(event_server, BareEventStream(), [news]):
        await wait_until_received(news, Position(6, "e"))
    assert record.tally == Tally(duplicated=2, reordered=1)


async def test_an_event_stream_resumes_from_its_last_id_and_records_gaps(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a stream is reported."""
    monkeypatch.setattr(subscribers, "AWAY_SECONDS", (0, 0))
    ends: list[bool] = []
    gap = json.dumps(
        {"channel": "more", "from": {"offset": 0, "epoch": "e"}, "to": {"offset": 7, "epoch": "f"}}
    )
    event_server = EventStreamServer(
        f"id: 0@e,0@e\n\n{message('news', 1, '1@e,0@e')}",
        f"event: gap\nid: 1@e,7@f\ndata: {gap}\n\n{message('news', 2, '2@e,7@f')}",
    )
    news, more = SubscriptionRecord(record, "news"), SubscriptionRecord(record, "more")
    async with subscribed(event_server, BareEventStream(lambda: ends.append(True)), [news, more]):
        await wait_until_received(news, Position(2, "e"))
    assert event_server.last_ids == ["", "1@e,0@e"]
    assert (more.position, more.has_gap, news.has_gap) == (Position(7, "f"), True, False)
    assert record.tally == Tally(gaps=1)
    assert ends == [True]
