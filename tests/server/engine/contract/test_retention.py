"""Retention: how many publications are kept, and for how long; and the top (docs/protocol.md §10)."""

import pytest

from tests.server.engine.contract.harness import Harness, publication
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import TOP_ONLY, Broker, HistoryQuery, NewPublication
from tocsin_server.protocol.messages import Position

ALL = HistoryQuery(limit=-1)


@pytest.fixture
def options(harness: Harness) -> ChannelOptions:
    """Publications are kept for 4 units, the top for 12."""
    unit = harness.unit
    return ChannelOptions(history_size=10, history_ttl=4 * unit, history_meta_ttl=12 * unit)


async def kept(broker: Broker, options: ChannelOptions) -> list[int]:
    return [
        publication.offset for publication in (await broker.read_history("news", ALL, options)).publications
    ]


async def test_a_history_keeps_its_last_publications(broker: Broker) -> None:
    """At most `history_size` of them. The offsets are not affected."""
    one = ChannelOptions(history_size=1, history_ttl=3600)
    for number in range(1, 4):
        await broker.publish("news", publication(number), one)
        assert await kept(broker, one) == [number]


async def test_a_smaller_size_applies_from_the_next_publication(broker: Broker) -> None:
    """A changed configuration needs no clean-up."""
    for number in range(1, 6):
        await broker.publish("news", publication(number), ChannelOptions(history_size=5, history_ttl=3600))
    two = ChannelOptions(history_size=2, history_ttl=3600)
    await broker.publish("news", publication(6), two)
    assert await kept(broker, two) == [5, 6]


async def test_publications_expire_together_after_the_last_one(
    broker: Broker, harness: Harness, options: ChannelOptions
) -> None:
    """Each publication extends the time to live of the earlier ones."""
    await broker.publish("news", publication(1), options)
    await harness.advance(3 * harness.unit)
    await broker.publish("news", publication(2), options)
    await harness.advance(3 * harness.unit)
    assert await kept(broker, options) == [1, 2]
    await harness.advance(2 * harness.unit)
    assert not await kept(broker, options)


async def test_reading_does_not_extend_the_time_to_live(
    broker: Broker, harness: Harness, options: ChannelOptions
) -> None:
    """Nor does an outdated publication, or one that skips history."""
    await broker.publish("news", NewPublication(publication(1).data, version=1), options)
    await harness.advance(3 * harness.unit)
    assert await kept(broker, options) == [1]
    await broker.publish("news", NewPublication(publication(1).data, version=1), options)
    await broker.publish("news", NewPublication(publication(1).data, skip_history=True), options)
    await harness.advance(2 * harness.unit)
    assert not await kept(broker, options)


async def test_the_top_outlives_the_publications(
    broker: Broker, harness: Harness, options: ChannelOptions
) -> None:
    """The next publication is alone in the history, with the next offset."""
    first = await broker.publish("news", publication(1), options)
    await harness.advance(6 * harness.unit)
    assert await broker.read_history("news", ALL, options) == History(first, [])
    assert await broker.publish("news", publication(2), options) == Position(2, first.epoch)
    assert await kept(broker, options) == [2]


async def test_expired_publications_do_not_return(
    broker: Broker, harness: Harness, options: ChannelOptions
) -> None:
    """Even if the history was not read since they expired."""
    first = await broker.publish("news", publication(1), options)
    await harness.advance(6 * harness.unit)
    assert await broker.publish("news", publication(2), options) == Position(2, first.epoch)
    assert await kept(broker, options) == [2]


async def test_an_unused_history_starts_over(
    broker: Broker, harness: Harness, options: ChannelOptions
) -> None:
    """Another epoch tells clients that offsets start over."""
    first = await broker.publish("news", publication(1), options)
    await harness.advance(14 * harness.unit)
    second = await broker.publish("news", publication(2), options)
    assert second.offset == 1
    assert second.epoch != first.epoch
    assert await kept(broker, options) == [1]


async def test_the_last_version_expires_with_the_top(
    broker: Broker, harness: Harness, options: ChannelOptions
) -> None:
    """It belongs to the history."""
    await broker.publish("news", NewPublication(publication(1).data, version=5), options)
    await harness.advance(14 * harness.unit)
    assert (await broker.publish("news", NewPublication(publication(2).data, version=1), options)).offset == 1
    assert await kept(broker, options) == [1]


@pytest.mark.parametrize("use", ["read", "publish"])
async def test_using_a_channel_keeps_its_top(
    broker: Broker, harness: Harness, options: ChannelOptions, use: str
) -> None:
    """Reading is enough, as every subscribe does."""
    epoch = (await broker.publish("news", publication(1), options)).epoch
    for _ in range(2):
        await harness.advance(8 * harness.unit)
        if use == "read":
            position = (await broker.read_history("news", TOP_ONLY, options)).top
        else:
            position = await broker.publish("news", publication(1), options)
        assert position.epoch == epoch
