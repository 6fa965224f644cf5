"""Publishing: offsets and epochs, the order of messages, and payloads that arrive unchanged."""

import asyncio

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tests.server.engine.recording_handler import ReceivedPublication, RecordingHandler
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import NO_POSITION, TOP_ONLY, Broker, HistoryQuery, NewPublication
from tocsin_server.protocol.messages import ClientInfo, Position, Publication

ALL = HistoryQuery(limit=-1)

PAYLOADS = [
    b"null",
    b"0",
    b"-0.0",
    b"1e999",
    b"1.10",
    b"123456789012345678901234567890",
    b'""',
    b'"\\u00e9 \\u2028 \\ud83d\\ude00 \\ud800 \\/ \\u0000"',
    '"é \u2028 😀 \u0085"'.encode(),
    b'{"b":1,"a":2,"a":3}',
    b'{ "spaced" : [ 1 , 2 ] }',
    b"[[[[[[[[[[]]]]]]]]]]",
    b'"' + b"x" * 1_000_000 + b'"',
]


async def test_offsets_count_from_one_in_one_epoch(broker: Broker) -> None:
    """The epoch consists of letters, because a position contains commas and @."""
    positions = [await broker.publish("news", publication(number), HISTORY) for number in range(1, 4)]
    assert [position.offset for position in positions] == [1, 2, 3]
    assert len({position.epoch for position in positions}) == 1
    assert positions[0].epoch.isascii()
    assert positions[0].epoch.isalpha()


async def test_each_channel_has_its_own_offsets(broker: Broker) -> None:
    """Publications in one channel do not affect the offsets of another."""
    await broker.publish("news", publication(1), HISTORY)
    await broker.publish("news", publication(2), HISTORY)
    assert (await broker.publish("weather", publication(1), HISTORY)).offset == 1


async def test_concurrent_publications_keep_their_order(broker: Broker, handler: RecordingHandler) -> None:
    """Each gets its own offset in the order of the calls, and is received in that order."""
    await broker.subscribe("news")
    positions = await asyncio.gather(
        *(broker.publish("news", publication(n), HISTORY) for n in range(1, 101))
    )
    assert [position.offset for position in positions] == list(range(1, 101))
    await handler.until_received(100)
    assert handler.offsets("news") == list(range(1, 101))
    assert handler.payloads("news") == [b"%d" % n for n in range(1, 101)]


async def test_stored_and_unstored_publications_keep_their_order(
    broker: Broker, handler: RecordingHandler
) -> None:
    """A publication that skips history is received between its neighbours."""
    await broker.subscribe("news")
    skipping = NewPublication(Raw(b"2"), skip_history=True)
    await asyncio.gather(
        broker.publish("news", publication(1), HISTORY),
        broker.publish("news", skipping, HISTORY),
        broker.publish("news", publication(3), HISTORY),
    )
    await handler.until_received(3)
    assert handler.payloads("news") == [b"1", b"2", b"3"]


async def test_the_received_publication_equals_the_stored_one(
    broker: Broker, handler: RecordingHandler
) -> None:
    """With the same offset and epoch."""
    await broker.subscribe("news")
    position = await broker.publish("news", publication(7), HISTORY)
    await handler.until_received(1)
    expected = Publication(Raw(b"7"), 1)
    assert handler.received == [ReceivedPublication("news", expected, position.epoch)]
    assert await broker.read_history("news", ALL, HISTORY) == History(position, [expected])


async def test_a_publication_without_history_has_no_position(
    broker: Broker, handler: RecordingHandler
) -> None:
    """It is received, but not stored."""
    await broker.subscribe("news")
    assert await broker.publish("news", publication(7), NO_HISTORY) == NO_POSITION
    await handler.until_received(1)
    assert handler.received == [ReceivedPublication("news", Publication(Raw(b"7")), "")]


async def test_a_publication_can_skip_history(broker: Broker, handler: RecordingHandler) -> None:
    """It is received without a position, and later offsets have no gap."""
    await broker.subscribe("news")
    first = await broker.publish("news", publication(1), HISTORY)
    assert await broker.publish("news", NewPublication(Raw(b"2"), skip_history=True), HISTORY) == NO_POSITION
    second = await broker.publish("news", publication(3), HISTORY)
    assert second == Position(2, first.epoch)
    await handler.until_received(3)
    assert handler.received[1] == ReceivedPublication("news", Publication(Raw(b"2")), "")
    history = await broker.read_history("news", ALL, HISTORY)
    assert [bytes(publication.data) for publication in history.publications] == [b"1", b"3"]


@pytest.mark.parametrize("options", [HISTORY, NO_HISTORY], ids=["history", "no history"])
@pytest.mark.parametrize("tags", [None, {"kind": "gâteau", "": "empty"}], ids=["no tags", "tags"])
@pytest.mark.parametrize(
    "info",
    [
        None,
        ClientInfo("42", "c1"),
        ClientInfo("", "c1", conn_info=Raw(b'{"n":1e999}')),
        ClientInfo("42", "c1", Raw(b'"\\u00e9"'), Raw(b"[ 1 ]")),
    ],
    ids=["no info", "bare", "anonymous", "full"],
)
async def test_info_and_tags_arrive_unchanged(
    node: Node, info: ClientInfo | None, tags: dict[str, str] | None, options: ChannelOptions
) -> None:
    """For subscribers and for readers of the history."""
    await node.broker.subscribe("news")
    position = await node.broker.publish("news", NewPublication(Raw(b"1"), info, tags), options)
    expected = Publication(Raw(b"1"), position.offset, info, tags)
    await node.handler.until_received(1)
    assert node.handler.received[0].publication == expected
    if options is HISTORY:
        assert (await node.broker.read_history("news", ALL, HISTORY)).publications == [expected]


@pytest.mark.parametrize("is_stored", [True, False], ids=["history", "no history"])
async def test_subscribed_nodes_learn_whether_a_publication_may_be_delivered_as_a_delta(
    node: Node, is_stored: bool
) -> None:
    """If its publisher or its namespace permits it, where the channel has deltas."""
    options = HISTORY if is_stored else NO_HISTORY
    deltas = options.model_copy(update={"allowed_delta_types": ("fossil",)})
    always = deltas.model_copy(update={"delta_publish": True})
    one, permitted = NewPublication(Raw(b"1")), NewPublication(Raw(b"1"), delta=True)
    await node.broker.subscribe("news")
    for published, others in ((one, deltas), (permitted, deltas), (one, always), (permitted, options)):
        await node.broker.publish("news", published, others)
    await node.broker.publish("news", NewPublication(Raw(b"1"), skip_history=True, delta=True), deltas)
    await node.handler.until_received(5)
    assert node.handler.may_be_delta == [False, True, True, False, True]
    assert node.handler.payloads("news") == [b"1"] * 5


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload[:24].decode())
async def test_payloads_arrive_byte_for_byte(
    broker: Broker, handler: RecordingHandler, payload: bytes
) -> None:
    """No number is rounded, no escape is rewritten, and no key is sorted."""
    await broker.subscribe("news")
    await broker.publish("news", NewPublication(Raw(payload)), HISTORY)
    await broker.publish("news", NewPublication(Raw(payload)), NO_HISTORY)
    await handler.until_received(2)
    assert handler.payloads("news") == [payload, payload]
    history = await broker.read_history("news", ALL, HISTORY)
    assert [bytes(publication.data) for publication in history.publications] == [payload]


async def test_a_channel_needs_no_subscribers(broker: Broker) -> None:
    """Its history is kept for later readers."""
    position = await broker.publish("news", publication(1), HISTORY)
    assert (await broker.read_history("news", TOP_ONLY, HISTORY)).top == position
