"""Subscribers without a client show to the record whatever they are sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.faults import subscribers
from tests.faults.record import Journal, Record, Tally
from tests.faults.subscribers import EventWire
from tests.support.proxies import HOST, accepting
from tests.support.timing import SOON
from tocsin import Position


class Script:
    """A server of event streams, of which all but the last end. `last_ids` are where they were to go on."""

    def __init__(self, *streams: str) -> None:
        self._streams = list(streams)
        self.last_ids: list[str] = []

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
async def subscribed(script: Script, wire: EventWire, journals: Sequence[Journal]) -> AsyncIterator[None]:
    async with accepting(script.lead) as port:
        task = asyncio.create_task(wire.subscribe(f"http://{HOST}:{port}", journals))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def heard(journal: Journal, position: Position) -> None:
    """Wait until somebody is there."""
    arrived = asyncio.Event()
    journal.call_at(position, arrived.set)
    async with asyncio.timeout(SOON):
        await arrived.wait()


@pytest.fixture
def record() -> Record:
    return Record()


async def test_what_an_event_stream_sends_twice_or_late_is_recorded(record: Record) -> None:
    """However long it is."""
    news = Journal(record, "news")
    offsets = (1, 2, 2, 3, 1, 5, 4, 6)
    script = Script("id: 0@e\nretry: 500\n\n" + "".join(message("news", offset) for offset in offsets))
    async with subscribed(script, EventWire(), [news]):
        await heard(news, Position(6, "e"))
    assert record.tally == Tally(duplicated=2, reordered=1)


async def test_an_event_stream_goes_on_from_its_last_id_and_gaps_are_told(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a stream ended is seen, too."""
    monkeypatch.setattr(subscribers, "AWAY_SECONDS", (0, 0))
    ends: list[bool] = []
    gap = json.dumps(
        {"channel": "more", "from": {"offset": 0, "epoch": "e"}, "to": {"offset": 7, "epoch": "f"}}
    )
    script = Script(
        f"id: 0@e,0@e\n\n{message('news', 1, '1@e,0@e')}",
        f"event: gap\nid: 1@e,7@f\ndata: {gap}\n\n{message('news', 2, '2@e,7@f')}",
    )
    news, more = Journal(record, "news"), Journal(record, "more")
    async with subscribed(script, EventWire(lambda: ends.append(True)), [news, more]):
        await heard(news, Position(2, "e"))
    assert script.last_ids == ["", "1@e,0@e"]
    assert (more.position, more.is_told, news.is_told) == (Position(7, "f"), True, False)
    assert record.tally == Tally(told=1)
    assert ends == [True]
