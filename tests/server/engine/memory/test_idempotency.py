"""Idempotency keys in memory: when they expire, and when their memory is freed."""

from __future__ import annotations

from msgspec import Raw

from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.virtual_time import VirtualTime
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.engine.broker import IDEMPOTENCY_SECONDS, NewPublication
from tocsin_server.engine.memory.broker import MemoryBroker
from tocsin_server.protocol.messages import Position

HISTORY = ChannelOptions(history_size=10, history_ttl=60, history_meta_ttl=600)
NO_HISTORY = ChannelOptions()


async def test_an_idempotency_key_is_freed_when_it_expires(broker: MemoryBroker, time: VirtualTime) -> None:
    """IDEMPOTENCY_SECONDS after its first use, however often it was repeated."""
    await broker.subscribe("news")
    keyed = NewPublication(Raw(b"1"), idempotency_key="k")
    first = await broker.publish("news", keyed, HISTORY)
    time.advance(IDEMPOTENCY_SECONDS - 1)
    assert await broker.publish("news", keyed, HISTORY) == first
    assert len(broker._idempotency) == 1
    time.advance(1)
    assert len(broker._idempotency) == 0
    assert await broker.publish("news", keyed, HISTORY) == Position(2, first.epoch)
    assert await broker.publish("news", keyed, HISTORY) == Position(2, first.epoch)


async def test_an_expired_idempotency_key_has_no_effect_before_it_is_freed(time: VirtualTime) -> None:
    """The sweep may be late. Here it is stopped."""
    broker = MemoryBroker(time.clock, lambda: "abcdefgh")
    broker.start(RecordingHandler(), time.call_later)
    keyed = NewPublication(Raw(b"1"), idempotency_key="k")
    await broker.publish("news", keyed, HISTORY)
    broker._sweeper.stop()
    time.advance(IDEMPOTENCY_SECONDS)
    assert await broker.publish("news", keyed, HISTORY) == Position(2, "abcdefgh")
    assert await broker.publish("news", keyed, NO_HISTORY) == Position(2, "abcdefgh")
    assert len(broker._idempotency) == 1
