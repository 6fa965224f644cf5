"""Memory does not grow with channels that are gone, and one timer sees to it."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest
from msgspec import Raw

from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.virtual_time import VirtualTime
from tests.support.timing import SOON
from tocsin_server.config.options import ChannelOptions
from tocsin_server.engine.broker import IDEMPOTENCY_SECONDS, NO_POSITION, TOP_ONLY, NewPublication
from tocsin_server.engine.memory.broker import MemoryBroker
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.memory.sweeper import ITEMS_PER_STEP, SWEEP_PAUSE_SECONDS, Timer
from tocsin_server.protocol.messages import ClientInfo

LOG = ChannelOptions(history_size=10, history_ttl=60, history_meta_ttl=600)
NO_LOG = ChannelOptions()
ONE = NewPublication(Raw(b"1"))


@pytest.fixture
def time() -> VirtualTime:
    return VirtualTime()


@pytest.fixture
async def engine(time: VirtualTime) -> AsyncIterator[MemoryEngine]:
    engine = MemoryEngine(clock=time.clock, call_later=time.call_later, random=Random(1))
    await engine.start(RecordingHandler())
    yield engine
    await engine.stop()


@pytest.fixture
def broker(engine: MemoryEngine) -> MemoryBroker:
    return engine.broker


def kept(broker: MemoryBroker) -> int:
    """Publications in memory, also lapsed ones that nobody can read."""
    return sum(len(log._kept) for log in broker._histories._histories.values())


async def test_publications_are_freed_when_they_lapse(broker: MemoryBroker, time: VirtualTime) -> None:
    """Without anybody asking for them; the log stays, then goes too, and with it the timer."""
    for channel in range(1000):
        await broker.publish(f"news:{channel}", ONE, LOG)
    time.advance(59)
    assert kept(broker) == 1000
    time.advance(1)
    assert kept(broker) == 0
    assert len(broker._histories) == 1000
    time.advance(540)
    assert len(broker._histories) == 0
    assert not time.waiting


async def test_a_log_may_be_over_before_what_it_keeps(broker: MemoryBroker, time: VirtualTime) -> None:
    """If it is read with other options than it was written with; the sweep goes on."""
    await broker.publish("news", ONE, LOG)
    await broker.read_history("news", TOP_ONLY, ChannelOptions(history_meta_ttl=5))
    time.advance(5)
    assert len(broker._histories) == 0
    assert not time.waiting


async def test_channels_without_a_log_leave_nothing(broker: MemoryBroker, time: VirtualTime) -> None:
    """Neither in memory nor a timer."""
    await broker.publish("news", ONE, NO_LOG)
    await broker.publish("news", NewPublication(Raw(b"1"), skip_history=True), LOG)
    await broker.remove_history("news")
    assert len(broker._histories) == 0
    assert not time.waiting


async def test_an_answer_is_freed_when_its_key_may_be_used_again(
    broker: MemoryBroker, time: VirtualTime
) -> None:
    """After IDEMPOTENCY_SECONDS from the first use, however often it was repeated."""
    await broker.subscribe("news")
    keyed = NewPublication(Raw(b"1"), idempotency_key="k")
    first = await broker.publish("news", keyed, LOG)
    time.advance(IDEMPOTENCY_SECONDS - 1)
    assert await broker.publish("news", keyed, LOG) == first
    assert len(broker._idempotency) == 1
    time.advance(1)
    assert len(broker._idempotency) == 0
    assert await broker.publish("news", keyed, LOG) == (2, first.epoch)
    assert await broker.publish("news", keyed, LOG) == (2, first.epoch)


async def test_a_lapsed_answer_does_not_count_though_it_is_not_freed_yet(time: VirtualTime) -> None:
    """The sweep may be late; a stopped one shows it."""
    broker = MemoryBroker(time.clock, lambda: "abcdefgh")
    broker.start(RecordingHandler(), time.call_later)
    keyed = NewPublication(Raw(b"1"), idempotency_key="k")
    await broker.publish("news", keyed, LOG)
    broker._sweeper.stop()
    time.advance(IDEMPOTENCY_SECONDS)
    assert await broker.publish("news", keyed, LOG) == (2, "abcdefgh")
    assert await broker.publish("news", keyed, NO_LOG) == (2, "abcdefgh")
    assert len(broker._idempotency) == 1


async def test_a_lapsed_log_does_not_count_though_it_is_not_freed_yet(time: VirtualTime) -> None:
    """Publications and tops neither."""
    epochs = iter(["a", "b"])
    broker = MemoryBroker(time.clock, lambda: next(epochs))
    broker.start(RecordingHandler(), time.call_later)
    await broker.publish("news", ONE, LOG)
    broker._sweeper.stop()
    time.advance(60)
    assert await broker.publish("news", ONE, LOG) == (2, "a")
    assert kept(broker) == 1
    time.advance(600)
    assert await broker.read_history("news", TOP_ONLY, LOG) == ((0, "b"), [])
    broker._sweeper.start(time.call_later)
    time.advance(600)
    assert len(broker._histories) == 0


async def test_there_is_one_timer_for_everything(broker: MemoryBroker, time: VirtualTime) -> None:
    """At the earliest deadline, or a little after it."""
    await broker.read_history("news", TOP_ONLY, LOG)
    assert time.waiting == [600]
    await broker.publish("news", NewPublication(Raw(b"1"), idempotency_key="k"), NO_LOG)
    assert time.waiting == [IDEMPOTENCY_SECONDS]
    await broker.publish("news", ONE, LOG)
    assert time.waiting == [60]
    time.advance(30)
    await broker.publish("news", ONE, LOG)
    assert time.waiting == [60]
    time.advance(30)
    assert time.waiting == [90]


async def test_deadlines_close_together_cost_one_timer(broker: MemoryBroker, time: VirtualTime) -> None:
    """A time to live of a millisecond makes no thousand rounds a second."""
    brief = ChannelOptions(history_size=1, history_ttl=0.001)
    await broker.publish("news", ONE, brief)
    assert time.waiting == [SWEEP_PAUSE_SECONDS]


async def test_a_round_is_done_in_steps(time: VirtualTime) -> None:
    """Between them the event loop gets its turn."""
    broker = MemoryBroker(time.clock, lambda: "abcdefgh")
    left = []

    def call_later(seconds: float, call: Callable[[], None]) -> Timer:
        def run() -> None:
            call()
            left.append(kept(broker))

        return time.call_later(seconds, run)

    broker.start(RecordingHandler(), call_later)
    for channel in range(2 * ITEMS_PER_STEP + 1):
        await broker.publish(f"news:{channel}", ONE, LOG)
    time.advance(60)
    assert left == [ITEMS_PER_STEP + 1, 1, 0]


async def test_removed_history_is_freed_at_once(broker: MemoryBroker, time: VirtualTime) -> None:
    """Then only the top is left to lapse."""
    await broker.publish("news", ONE, LOG)
    await broker.remove_history("news")
    assert kept(broker) == 0
    time.advance(60)
    assert time.waiting == [600]


async def test_a_stopped_engine_has_no_timer(engine: MemoryEngine, time: VirtualTime) -> None:
    """Nor does it get one by what is asked of it afterwards; started again, it goes on."""
    await engine.broker.publish("news", ONE, LOG)
    assert time.waiting
    await engine.stop()
    await engine.broker.read_history("weather", TOP_ONLY, LOG)
    assert not time.waiting
    await engine.start(RecordingHandler())
    assert time.waiting == [60]


async def test_presence_and_listening_leave_nothing(engine: MemoryEngine) -> None:
    """Whoever leaves takes the channel along."""
    await engine.presence.add("news", ClientInfo("42", "c1"))
    await engine.presence.remove("news", "c1")
    await engine.broker.subscribe("news")
    await engine.broker.unsubscribe("news")
    assert not engine.presence._channels
    assert not engine.broker._subscribed


async def test_epochs_come_from_the_randomness_given(broker: MemoryBroker) -> None:
    """Eight letters, another eight for each log."""
    first = (await broker.read_history("news", TOP_ONLY, LOG)).top.epoch
    second = (await broker.read_history("weather", TOP_ONLY, LOG)).top.epoch
    again = MemoryEngine(random=Random(1)).broker
    assert (await again.read_history("news", TOP_ONLY, LOG)).top.epoch == first
    assert len(first) == len(second) == 8
    assert first != second


class Tags(dict[str, str]):
    """Tags whose end can be observed."""


async def test_real_clocks_and_timers_do_the_same() -> None:
    """By default time is the system's and timers are the event loop's."""
    engine = MemoryEngine()
    await engine.start(RecordingHandler())
    brief = ChannelOptions(history_size=1, history_ttl=0.001, history_meta_ttl=0.001)
    freed = asyncio.Event()
    tags = Tags(kind="brief")
    weakref.finalize(tags, freed.set)
    await engine.broker.publish("news", NewPublication(Raw(b"1"), tags=tags), brief)
    del tags
    async with asyncio.timeout(SOON):
        await freed.wait()
    assert len(engine.broker._histories) == 0
    assert engine.broker._sweeper._timer is None
    await engine.stop()


async def test_without_a_log_the_answer_has_no_position(broker: MemoryBroker) -> None:
    """Though the channel may have had one."""
    await broker.publish("news", ONE, LOG)
    assert await broker.publish("news", ONE, NO_LOG) == NO_POSITION
