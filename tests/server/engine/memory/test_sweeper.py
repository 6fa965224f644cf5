"""The sweeper: memory of expired items is freed, by a single timer."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable

from msgspec import Raw

from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.virtual_time import VirtualTime
from tests.support.timing import SOON
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import IDEMPOTENCY_SECONDS, TOP_ONLY, NewPublication
from tocsin_server.engine.memory.broker import MemoryBroker
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.engine.memory.sweeper import ITEMS_PER_STEP, SWEEP_PAUSE_SECONDS, Timer
from tocsin_server.protocol.messages import Position

HISTORY = ChannelOptions(history_size=10, history_ttl=60, history_meta_ttl=600)
NO_HISTORY = ChannelOptions()
ONE = NewPublication(Raw(b"1"))


def kept(broker: MemoryBroker) -> int:
    """How many publications are in memory, including expired ones, which no reader sees."""
    return sum(len(history._kept) for history in broker._histories._histories.values())


async def test_expired_publications_are_freed_without_a_read(broker: MemoryBroker, time: VirtualTime) -> None:
    """The tops are kept longer, and are then freed with the timer."""
    for channel in range(1000):
        await broker.publish(f"news:{channel}", ONE, HISTORY)
    time.advance(59)
    assert kept(broker) == 1000
    time.advance(1)
    assert kept(broker) == 0
    assert len(broker._histories) == 1000
    time.advance(540)
    assert len(broker._histories) == 0
    assert not time.scheduled


async def test_publications_are_kept_from_the_last_one_on(broker: MemoryBroker, time: VirtualTime) -> None:
    """Several in a second share a deadline in the sweeper. What expires behind it is freed with it."""
    await broker.publish("news", ONE, HISTORY)
    time.advance(0.1)
    await broker.publish("weather", ONE, HISTORY)
    time.advance(0.4)
    await broker.publish("news", ONE, HISTORY)
    time.advance(59.9)
    assert kept(broker) == 3
    time.advance(SWEEP_PAUSE_SECONDS)
    assert kept(broker) == 0
    assert len(broker._histories) == 2
    time.advance(540 + SWEEP_PAUSE_SECONDS)
    assert len(broker._histories) == 0
    assert not time.scheduled


async def test_publications_with_a_brief_lifetime_are_freed_each_time(
    broker: MemoryBroker, time: VirtualTime
) -> None:
    brief = ChannelOptions(history_size=1, history_ttl=0.001, history_meta_ttl=600)
    for _ in range(3):
        await broker.publish("news", ONE, brief)
        time.advance(SWEEP_PAUSE_SECONDS)
        assert kept(broker) == 0


async def test_a_top_may_expire_before_its_publications(broker: MemoryBroker, time: VirtualTime) -> None:
    """As when it is read with other options than it was written with. The sweep continues."""
    await broker.publish("news", ONE, HISTORY)
    await broker.read_history("news", TOP_ONLY, ChannelOptions(history_meta_ttl=5))
    time.advance(5)
    assert len(broker._histories) == 0
    assert not time.scheduled


async def test_channels_without_history_use_no_memory(broker: MemoryBroker, time: VirtualTime) -> None:
    """They need no timer either."""
    await broker.publish("news", ONE, NO_HISTORY)
    await broker.publish("news", NewPublication(Raw(b"1"), skip_history=True), HISTORY)
    await broker.remove_history("news")
    assert len(broker._histories) == 0
    assert not time.scheduled


async def test_an_expired_history_has_no_effect_before_it_is_freed(time: VirtualTime) -> None:
    """Neither its publications nor its top."""
    epochs = iter(["a", "b"])
    broker = MemoryBroker(time.clock, lambda: next(epochs))
    broker.start(RecordingHandler(), time.call_later)
    await broker.publish("news", ONE, HISTORY)
    broker._sweeper.stop()
    time.advance(60)
    assert await broker.publish("news", ONE, HISTORY) == Position(2, "a")
    assert kept(broker) == 1
    await broker.subscribe("news")
    time.advance(600)
    assert await broker.read_history("news", TOP_ONLY, HISTORY) == History(Position(0, "b"), [])
    broker._sweeper.start(time.call_later)
    time.advance(600)
    assert len(broker._histories) == 0


async def test_one_timer_serves_all_stores(broker: MemoryBroker, time: VirtualTime) -> None:
    """It is scheduled at the earliest deadline, or a little later."""
    await broker.subscribe("news")
    await broker.read_history("news", TOP_ONLY, HISTORY)
    assert time.scheduled == [600]
    await broker.publish("news", NewPublication(Raw(b"1"), idempotency_key="k"), NO_HISTORY)
    assert time.scheduled == [IDEMPOTENCY_SECONDS]
    await broker.publish("news", ONE, HISTORY)
    assert time.scheduled == [60]
    time.advance(30)
    await broker.publish("news", ONE, HISTORY)
    assert time.scheduled == [60]
    time.advance(30)
    assert time.scheduled == [90]


async def test_deadlines_close_together_share_a_sweep(broker: MemoryBroker, time: VirtualTime) -> None:
    """A time to live of a millisecond does not cause a thousand sweeps per second."""
    brief = ChannelOptions(history_size=1, history_ttl=0.001)
    await broker.publish("news", ONE, brief)
    assert time.scheduled == [SWEEP_PAUSE_SECONDS]


async def test_a_large_sweep_is_done_in_steps(time: VirtualTime) -> None:
    """The event loop runs in between."""
    broker = MemoryBroker(time.clock, lambda: "abcdefgh")
    left = []

    def call_later(seconds: float, call: Callable[[], None]) -> Timer:
        def run() -> None:
            call()
            left.append(kept(broker))

        return time.call_later(seconds, run)

    broker.start(RecordingHandler(), call_later)
    for channel in range(2 * ITEMS_PER_STEP + 1):
        await broker.publish(f"news:{channel}", ONE, HISTORY)
    time.advance(60)
    assert left == [ITEMS_PER_STEP + 1, 1, 0]


async def test_removed_history_is_freed_at_once(broker: MemoryBroker, time: VirtualTime) -> None:
    """Only the top is left to expire."""
    await broker.publish("news", ONE, HISTORY)
    await broker.remove_history("news")
    assert kept(broker) == 0
    time.advance(60)
    assert time.scheduled == [600]


async def test_a_stopped_engine_has_no_timer(engine: MemoryEngine, time: VirtualTime) -> None:
    """Later calls do not schedule one. When the engine starts again, the sweeper continues."""
    await engine.broker.publish("news", ONE, HISTORY)
    assert time.scheduled
    await engine.stop()
    await engine.broker.read_history("weather", TOP_ONLY, HISTORY)
    assert not time.scheduled
    await engine.start(RecordingHandler())
    assert time.scheduled == [60]


class Tags(dict[str, str]):
    """Tags whose deallocation can be observed."""


async def test_the_default_clock_and_timer_free_memory() -> None:
    """The defaults are the system's clock and the event loop's timers."""
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
