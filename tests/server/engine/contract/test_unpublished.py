"""Histories without publications: they have an epoch, and take no memory of the store."""

import pytest

from tests.server.engine.contract.harness import HISTORY, Harness, Node, publication
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.engine.broker import TOP_ONLY, Broker, HistoryQuery
from tocsin_server.protocol.messages import Position

ALL = HistoryQuery(limit=-1)
FOLLOWED = HistoryQuery(keeps_epoch=True)


@pytest.fixture
def options(harness: Harness) -> ChannelOptions:
    """The top of an unused history is kept for 12 units."""
    unit = harness.unit
    return ChannelOptions(history_size=10, history_ttl=4 * unit, history_meta_ttl=12 * unit)


async def test_the_first_publication_keeps_the_epoch_that_was_read(broker: Broker) -> None:
    """Every read before it returns the same one."""
    for channel in ("news", "weather"):
        top = (await broker.read_history(channel, TOP_ONLY, HISTORY)).top
        assert (await broker.read_history(channel, ALL, HISTORY)).top == top
        assert await broker.publish(channel, publication(1), HISTORY) == Position(1, top.epoch)


async def test_the_epoch_is_the_same_on_all_nodes(node: Node, other_node: Node) -> None:
    """Whether a history is read, or published to."""
    top = (await node.broker.read_history("news", ALL, HISTORY)).top
    assert (await other_node.broker.read_history("news", ALL, HISTORY)).top == top
    assert await other_node.broker.publish("news", publication(1), HISTORY) == Position(1, top.epoch)
    assert (await node.broker.read_history("news", ALL, HISTORY)).top == Position(1, top.epoch)


async def test_a_history_never_returns_to_an_epoch(
    broker: Broker, harness: Harness, options: ChannelOptions
) -> None:
    """Whenever its top has expired, all histories without publications have another epoch, too."""
    epochs = []
    for _ in range(4):
        epoch = (await broker.read_history("weather", TOP_ONLY, options)).top.epoch
        await harness.advance(7 * harness.unit)
        assert (await broker.publish("news", publication(1), options)).offset == 1
        epochs.append((await broker.read_history("news", TOP_ONLY, options)).top.epoch)
        assert epoch in epochs[-1:] or epoch not in epochs
        await harness.advance(13 * harness.unit)
    assert len(set(epochs)) == len(epochs)


async def test_a_followed_history_keeps_its_epoch(
    node: Node, harness: Harness, options: ChannelOptions
) -> None:
    """A node with subscribers reads it again and again, also when other histories have another epoch."""
    await node.broker.subscribe("news")
    top = (await node.broker.read_history("news", FOLLOWED, options)).top
    for _ in range(20):
        await harness.advance(0.9 * harness.unit)
        assert (await node.broker.read_history("news", FOLLOWED, options)).top == top
    assert await node.broker.publish("news", publication(1), options) == Position(1, top.epoch)
