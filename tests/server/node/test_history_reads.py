"""Reads of histories for subscriptions: clients that need the same part share one."""

import asyncio
from itertools import pairwise
from typing import cast

import pytest
from msgspec import Raw

from tests.support.timing import TICK
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel import Channel
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import Broker, HistoryQuery
from tocsin_server.errors import EngineError
from tocsin_server.node import history_reads
from tocsin_server.node.history_reads import SHARED_AT_ONCE, HistoryReads
from tocsin_server.node.slots import Slots
from tocsin_server.protocol.messages import Position, Publication

OPTIONS = ChannelOptions(history_size=10, history_ttl=60)
PAGE = 1000
Result = tuple[History, int]


class HeldBroker:
    """Has one publication. Reads wait for `is_open`, and raise `failure` if there is one."""

    def __init__(self) -> None:
        self.is_open = asyncio.Event()
        self.failure: EngineError | None = None
        self.reads = 0

    async def read_history(self, _channel: str, query: HistoryQuery, _options: ChannelOptions) -> History:
        """Read."""
        self.reads += 1
        await self.is_open.wait()
        if self.failure is not None:
            raise self.failure
        assert query.since is not None
        return History(Position(1, "epoch"), [] if query.since.offset else [Publication(Raw(b"1"), 1)])


class Reader:
    """Reads the history of one channel."""

    def __init__(self, slots: int = PAGE) -> None:
        self.engine = HeldBroker()
        self.slots: Slots[str] = Slots(slots)
        self.reads: HistoryReads[str] = HistoryReads(cast("Broker", self.engine), self.slots)  # type: ignore[type-var]
        self.channel: Channel[str] = Channel("news")  # type: ignore[type-var]

    def read(self, client: str, since: int = 0, channel: Channel[str] | None = None) -> asyncio.Task[Result]:  # type: ignore[type-var]
        """Begin to read what follows `since`."""
        query = HistoryQuery(Position(since, ""), 10, limit_bytes=PAGE)
        call = self.reads.read(
            client, self.channel if channel is None else channel, lambda: query, OPTIONS, PAGE
        )
        return asyncio.create_task(call)


async def begun() -> None:
    """Let the tasks run until all wait."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_clients_that_need_the_same_part_share_one_read_and_one_slot() -> None:
    """A client that needs another part reads by itself, and so does one that comes later."""
    reader = Reader(slots=2 * PAGE)
    same = [reader.read(name) for name in "abc"]
    other = reader.read("d", since=1)
    await begun()
    assert (reader.engine.reads, len(reader.slots)) == (2, 2)
    reader.engine.is_open.set()
    results = await asyncio.gather(*same)
    assert [slot_bytes for _, slot_bytes in results] == [PAGE, 0, 0]
    assert all(history is results[0][0] for history, _ in results)
    assert [one.offset for one in results[0][0].publications] == [1]
    assert not (await other)[0].publications
    reader.slots.give_back("a", PAGE)
    await reader.read("e")
    assert reader.engine.reads == 3


async def test_a_read_is_not_shared_with_a_later_channel_of_the_same_name() -> None:
    """Between the two, the node may have been unsubscribed and missed publications."""
    reader = Reader(slots=2 * PAGE)
    reads = [reader.read("a"), reader.read("b", channel=Channel("news"))]
    await begun()
    assert reader.engine.reads == 2
    reader.engine.is_open.set()
    assert [slot_bytes for _, slot_bytes in await asyncio.gather(*reads)] == [PAGE, PAGE]


async def test_a_client_that_waited_for_a_slot_shares_a_read_that_began_meanwhile() -> None:
    reader = Reader()
    reader.slots.take_now("x", PAGE)
    waiting = [reader.read("a"), reader.read("b")]
    await begun()
    assert reader.engine.reads == 0
    reader.slots.give_back("x", PAGE)
    await begun()
    assert reader.engine.reads == 1
    shared = reader.read("c")
    await begun()
    reader.engine.is_open.set()
    history, slot_bytes = await waiting[0]
    assert (slot_bytes, (await shared)[1]) == (PAGE, 0)
    reader.slots.give_back("a", PAGE)
    assert (await waiting[1])[0] == history


async def test_all_clients_of_a_read_that_fails_are_told() -> None:
    """None of them keeps a slot."""
    reader = Reader()
    reader.engine.failure = EngineError("broken")
    reads = [reader.read(name) for name in "ab"]
    await begun()
    reader.engine.is_open.set()
    for outcome in await asyncio.gather(*reads, return_exceptions=True):
        assert isinstance(outcome, EngineError)
    assert len(reader.slots) == 0


async def test_the_others_are_told_if_the_client_that_reads_is_cancelled() -> None:
    reader = Reader()
    first, other = reader.read("a"), reader.read("b")
    await begun()
    first.cancel()
    with pytest.raises(EngineError):
        await other
    assert len(reader.slots) == 0


async def test_a_client_without_a_slot_in_time_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_reads, "WAIT_SECONDS", TICK / 10)
    reader = Reader()
    reader.slots.take_now("x", PAGE)
    with pytest.raises(TimeoutError):
        await reader.read("a")
    assert len(reader.slots) == 1


@pytest.mark.parametrize("failure", [None, EngineError("broken")])
async def test_a_shared_history_is_handed_out_to_a_few_clients_in_each_turn_of_the_loop(
    failure: EngineError | None,
) -> None:
    """Each of them encodes and writes it. Together they would hold up all other clients."""
    reader = Reader()
    reader.engine.failure = failure
    reads = [reader.read(str(number)) for number in range(10 * SHARED_AT_ONCE)]
    await begun()
    reader.engine.is_open.set()
    counts = [0]
    while counts[-1] < len(reads):
        await asyncio.sleep(0)
        counts.append(sum(read.done() for read in reads))
    assert max(after - before for before, after in pairwise(counts)) <= SHARED_AT_ONCE + 1
    await asyncio.gather(*reads, return_exceptions=True)
    assert reader.engine.reads == 1
