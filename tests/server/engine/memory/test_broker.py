"""The memory broker."""

from __future__ import annotations

from msgspec import Raw

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.engine.broker import NO_POSITION, NewPublication
from tocsin_server.engine.memory.broker import MemoryBroker

HISTORY = ChannelOptions(history_size=10, history_ttl=60, history_meta_ttl=600)
NO_HISTORY = ChannelOptions()
ONE = NewPublication(Raw(b"1"))


async def test_the_result_without_history_has_no_position(broker: MemoryBroker) -> None:
    """Even if the channel had history before."""
    await broker.publish("news", ONE, HISTORY)
    assert await broker.publish("news", ONE, NO_HISTORY) == NO_POSITION
