"""Publishing batches: a channel keeps its order, in any sequence of failures, and others go on."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.sources.outbox_table import until
from tests.support.timing import SOON, TICK
from tocsin_server.config.source_options import OutboxOptions
from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.broker import NewPublication
from tocsin_server.errors import INTERNAL_ERROR, UNKNOWN_CHANNEL, EngineError, Refused
from tocsin_server.node.operations import Operations
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.protocol.messages import Position
from tocsin_server.sources import publishing as publishing_module
from tocsin_server.sources.entry import SourceEntry
from tocsin_server.sources.postgres.outbox import Outbox
from tocsin_server.sources.publishing import DEFECT, Deadline, EntryPublisher, Outcome

OUTCOMES = st.sampled_from(["stored", "not stored", "stored without an answer", "full", "refused"])


class Channels:
    """Stores publications by key, as an engine does, with outcomes that the test chooses."""

    def __init__(self, outcomes: list[str]) -> None:
        self._outcomes = iter(outcomes)
        self.stored: dict[str, list[int]] = {}

    async def begin_publish(self, channel: str, publication: NewPublication) -> None:
        await asyncio.sleep(0)
        outcome = next(self._outcomes, "stored")
        if outcome == "not stored":
            raise EngineError("the command could not be sent to Redis in time")
        if outcome == "full":
            raise Refused(INTERNAL_ERROR)
        if outcome == "refused":
            raise Refused(UNKNOWN_CHANNEL)
        numbers, number = self.stored.setdefault(channel, []), int(publication.idempotency_key)
        if number not in numbers:
            numbers.append(number)
        if outcome == "stored without an answer":
            raise TimeoutError

    def publisher(self) -> EntryPublisher:
        return EntryPublisher(Outbox(OutboxOptions(), 1_000_000), cast("Operations", self), SampledLog())


def entries(channels: list[str]) -> list[SourceEntry]:
    return [SourceEntry(str(n), channel, str(n), data=b"%d" % n) for n, channel in enumerate(channels)]


@given(
    st.lists(st.sampled_from("ab"), min_size=4, max_size=12),
    st.lists(OUTCOMES, min_size=4, max_size=12),
    st.integers(2, 6),
)
async def test_each_channel_keeps_its_order_however_often_it_fails(
    channels: list[str], outcomes: list[str], batch: int
) -> None:
    """What was read again after a failure is stored once, before what follows it in its channel."""
    engine = Channels(outcomes)
    left, failed = entries(channels), set()
    while left:
        outcome = await engine.publisher().publish(left[:batch], Deadline(SOON))
        done = {entry.id for entry in outcome.published}
        failed |= {failure.entry.id for failure in outcome.failures}
        assert {entry.channel for entry in left[:batch] if entry.id not in done | failed} == outcome.held
        left = [entry for entry in left if entry.id not in done | failed]
    for channel in set(channels):
        expected = [n for n, one in enumerate(channels) if one == channel and str(n) not in failed]
        found = engine.stored.get(channel, [])
        # An entry without an answer may be refused when it is repeated, which an engine does not do.
        assert [n for n in found if str(n) not in failed] == expected


async def test_a_defect_fails_its_entry_alone() -> None:
    """The traceback is in the log, and the entry is kept."""
    engine = Channels([])
    broken = SourceEntry("0", "a", "no number", data=b"1")
    outcome = await engine.publisher().publish([broken, *entries(["a", "b"])], Deadline(SOON))
    assert [(failure.entry.id, failure.reason) for failure in outcome.failures] == [("0", DEFECT)]
    assert engine.stored == {"a": [0], "b": [1]}


@pytest.mark.parametrize("suspended", [False, True])
async def test_a_batch_ends_at_its_deadline(suspended: bool) -> None:
    """Then another node may have published it, so long ago that the engine has forgotten the keys."""
    now = 0.0
    engine = Channels([])

    async def begin_publish(channel: str, publication: NewPublication) -> None:
        nonlocal now
        now += 10
        await Channels.begin_publish(engine, channel, publication)

    engine.begin_publish = begin_publish  # type: ignore[method-assign]
    clocks = [lambda: 0.0, lambda: now]
    deadline = Deadline(25, clocks if suspended else clocks[::-1])
    outcome = await engine.publisher().publish(entries(["a"] * 5), deadline)
    assert engine.stored == {"a": [0, 1, 2]}
    assert [entry.id for entry in outcome.published] == ["0", "1", "2"]
    assert not outcome.held
    assert not outcome.failures


class WaitingChannels:
    """An engine whose publications end when the test says."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, EagerFuture[Position]]] = []

    def begin_publish(self, channel: str, _publication: NewPublication) -> EagerFuture[Position]:
        future: EagerFuture[Position] = EagerFuture()
        self.begun.append((channel, future))
        return future

    def publishing(self, channels: list[str]) -> asyncio.Task[Outcome]:
        """A task that publishes an entry into each of these channels."""
        source = Outbox(OutboxOptions(), 1_000_000)
        publisher = EntryPublisher(source, cast("Operations", self), SampledLog())
        return asyncio.create_task(publisher.publish(entries(channels), Deadline(SOON)))


async def test_the_next_publication_of_a_channel_begins_in_the_call_that_ends_the_one_before() -> None:
    """The channels go on beside each other."""
    engine = WaitingChannels()
    publishing = engine.publishing(["a", "a", "b", "a"])
    await until(lambda: len(engine.begun) == 2)
    for number in (0, 1, 2, 3):
        engine.begun[number][1].set_result(Position(number, "epoch"))
        if number in (0, 2):
            assert engine.begun[-1][0] == "a"
            assert len(engine.begun) == 3 + number // 2
    assert [channel for channel, _ in engine.begun] == ["a", "b", "a", "a"]
    assert {entry.id for entry in (await publishing).published} == {"0", "1", "2", "3"}


async def test_a_publication_without_an_answer_holds_its_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is cancelled. Nothing follows it in its channel, and others go on."""
    monkeypatch.setattr(publishing_module, "PUBLISH_SECONDS", 2 * TICK)
    monkeypatch.setattr(publishing_module, "CHECK_SECONDS", TICK)
    engine = WaitingChannels()
    publishing = engine.publishing(["a", "a", "b"])
    await until(lambda: len(engine.begun) == 2)
    engine.begun[1][1].set_result(Position(1, "epoch"))
    outcome = await publishing
    assert outcome.held == {"a"}
    assert [entry.id for entry in outcome.published] == ["2"]
    assert [future.cancelled() for _, future in engine.begun] == [True, False]


async def test_a_batch_that_is_cancelled_begins_nothing_further() -> None:
    """As at the end of a node that stops. What was not sent is not sent."""
    engine = WaitingChannels()
    publishing = engine.publishing(["a", "a", "b"])
    await until(lambda: len(engine.begun) == 2)
    publishing.cancel()
    await asyncio.wait([publishing])
    assert publishing.cancelled()
    assert [future.cancelled() for _, future in engine.begun] == [True, True]
