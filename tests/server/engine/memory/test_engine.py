"""The memory engine: its epochs, and its memory when it is idle."""

from __future__ import annotations

from random import Random

from msgspec import Raw

from tests.server.engine.virtual_time import VirtualTime
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.engine.broker import TOP_ONLY, NewPublication
from tocsin_server.engine.memory.broker import MemoryBroker
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.protocol.messages import ClientInfo

ONE = NewPublication(Raw(b"1"))
HISTORY = ChannelOptions(history_size=10, history_ttl=60, history_meta_ttl=600)


async def test_presence_and_subscriptions_leave_no_memory(engine: MemoryEngine) -> None:
    """Once they are removed, the channel takes no memory."""
    await engine.presence.add("news", ClientInfo("42", "c1"))
    await engine.presence.remove("news", "c1")
    await engine.broker.subscribe("news")
    await engine.broker.unsubscribe("news")
    assert not engine.presence._channels
    assert not engine.broker._subscribed


async def test_a_history_without_publications_takes_memory_only_while_the_node_is_subscribed(
    broker: MemoryBroker, time: VirtualTime
) -> None:
    """Reading endless channel names takes none, nor do clients that subscribe to and leave them."""
    for number in range(100):
        await broker.read_history(f"news:{number}", TOP_ONLY, HISTORY)
        await broker.subscribe("weather")
        await broker.read_history("weather", TOP_ONLY, HISTORY)
        assert len(broker._histories) == 1
        await broker.unsubscribe("weather")
        assert len(broker._histories) == 0
    await broker.publish("news", ONE, HISTORY)
    await broker.subscribe("news")
    await broker.unsubscribe("news")
    assert len(broker._histories) == 1
    time.advance(HISTORY.history_meta_ttl)
    assert time.scheduled == []


async def test_epochs_come_from_the_given_random_generator(broker: MemoryBroker) -> None:
    """Eight letters, different for each time to live."""
    other = ChannelOptions(history_size=1, history_ttl=60, history_meta_ttl=60)
    first = (await broker.read_history("news", TOP_ONLY, HISTORY)).top.epoch
    second = (await broker.read_history("news", TOP_ONLY, other)).top.epoch
    again = MemoryEngine(random=Random(1)).broker
    assert (await again.read_history("news", TOP_ONLY, HISTORY)).top.epoch == first
    assert len(first) == len(second) == 8
    assert first != second
