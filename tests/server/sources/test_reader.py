"""The reader of a source that always has further entries: when it reads, and when it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import pytest

from tests.server.sources.outbox_table import until
from tocsin_server.engine.broker import NewPublication
from tocsin_server.errors import EngineError
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.node import Node
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.sources import reader
from tocsin_server.sources.entry import SourceEntry
from tocsin_server.sources.reader import SourceReader
from tocsin_server.sources.source import Failure, OpenSource, Unpublished

CHANNELS = 5


class BusySource:
    """A source in which back ends go on writing: it never waits. Channels are full until `has_room`."""

    name = "outbox"
    wait_seconds = 60.0
    channels: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.waiting = [SourceEntry(str(n), f"c{n}", str(n), data=b"1") for n in range(CHANNELS)]
        self.calls = {"claim": 0, "read": 0}
        self.has_room = False
        self.published: list[str] = []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[OpenSource]:
        yield self

    async def claim(self) -> bool:
        self.calls["claim"] += 1
        return True

    async def release(self) -> None:
        pass

    async def read(self, held: Collection[str]) -> Sequence[SourceEntry]:
        self.calls["read"] += 1
        return [entry for entry in self.waiting if entry.channel not in held][:2]

    async def remove(self, published: Sequence[SourceEntry]) -> Sequence[SourceEntry]:
        self.waiting = [entry for entry in self.waiting if entry not in published]
        return published

    async def fail(self, failures: Sequence[Failure]) -> int:
        return len(failures)

    async def wait(self, seconds: float) -> None:
        await asyncio.sleep(0)

    async def unpublished(self) -> Unpublished:
        return Unpublished(len(self.waiting), 0.0)

    async def begin_publish(self, channel: str, _publication: NewPublication) -> None:
        if not self.has_room:
            raise EngineError("the memory of Redis is full")
        self.published.append(channel)

    async def expire_keys(self, _keys: object) -> None:
        pass

    def reader(self) -> SourceReader:
        node = SimpleNamespace(
            metrics=Metrics(), operations=self, sampled_log=SampledLog(), unready_reason=""
        )
        return SourceReader(self, cast("Node", node))


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_with_too_many_held_channels_the_reader_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although there are further entries. Once the time of the channels is over, it goes on."""
    monkeypatch.setattr(reader, "HELD_CHANNELS", 4)
    monkeypatch.setattr(reader, "HOLD_SECONDS", 0.2)
    source = BusySource()
    async with source.reader().running():
        await until(lambda: source.calls["read"] >= 2)
        await turns(1000)
        assert source.calls["claim"] < 20
        source.has_room = True
        await until(lambda: not source.waiting)
    assert sorted(source.published) == [f"c{n}" for n in range(CHANNELS)]


async def test_a_batch_that_is_too_old_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is published before."""
    monkeypatch.setattr(reader, "BATCH_SECONDS", 0.0)
    source = BusySource()
    source.has_room = True
    async with source.reader().running():
        await until(lambda: source.calls["read"] > 3)
        assert source.published == []
        monkeypatch.setattr(reader, "BATCH_SECONDS", 60.0)
        await until(lambda: not source.waiting)
    assert source.published == [f"c{n}" for n in range(CHANNELS)]
