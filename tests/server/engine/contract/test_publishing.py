"""Publishing: offsets and epochs, the order of announcements, and payloads that arrive as they were sent."""

import asyncio

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import LOG, NO_LOG, Node, publication
from tests.server.engine.recording_handler import ReceivedPublication, RecordingHandler
from tocsin_server.config.options import ChannelOptions
from tocsin_server.engine.broker import NO_POSITION, TOP_ONLY, Broker, HistoryQuery, NewPublication
from tocsin_server.protocol.messages import ClientInfo, Publication

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
    """1, 2, 3 …, and the epoch is a text that a position can carry: letters, so neither comma nor @."""
    positions = [await broker.publish("news", publication(number), LOG) for number in range(1, 4)]
    assert [position.offset for position in positions] == [1, 2, 3]
    assert len({position.epoch for position in positions}) == 1
    assert positions[0].epoch.isascii()
    assert positions[0].epoch.isalpha()


async def test_channels_count_each_for_themselves(broker: Broker) -> None:
    """One channel's publications leave another's offsets alone."""
    await broker.publish("news", publication(1), LOG)
    await broker.publish("news", publication(2), LOG)
    assert (await broker.publish("weather", publication(1), LOG)).offset == 1


async def test_concurrent_publications_take_their_turns(broker: Broker, witness: RecordingHandler) -> None:
    """Each gets an offset of its own, in the order of the calls, and is announced in the order of offsets."""
    await broker.subscribe("news")
    positions = await asyncio.gather(*(broker.publish("news", publication(n), LOG) for n in range(1, 101)))
    assert [position.offset for position in positions] == list(range(1, 101))
    await witness.until_received(100)
    assert witness.offsets("news") == list(range(1, 101))
    assert witness.payloads("news") == [b"%d" % n for n in range(1, 101)]


async def test_channels_with_and_without_a_log_keep_the_order_of_calls(
    broker: Broker, witness: RecordingHandler
) -> None:
    """What skips the log is announced between what was published before and after it."""
    await broker.subscribe("news")
    skipping = NewPublication(Raw(b"2"), skip_history=True)
    await asyncio.gather(
        broker.publish("news", publication(1), LOG),
        broker.publish("news", skipping, LOG),
        broker.publish("news", publication(3), LOG),
    )
    await witness.until_received(3)
    assert witness.payloads("news") == [b"1", b"2", b"3"]


async def test_what_is_announced_is_what_is_kept(broker: Broker, witness: RecordingHandler) -> None:
    """The same publication, under the same epoch, by both ways."""
    await broker.subscribe("news")
    position = await broker.publish("news", publication(7), LOG)
    await witness.until_received(1)
    expected = Publication(Raw(b"7"), 1)
    assert witness.received == [ReceivedPublication("news", expected, position.epoch)]
    assert await broker.read_history("news", ALL, LOG) == (position, [expected])


async def test_without_a_log_a_publication_has_no_position(broker: Broker, witness: RecordingHandler) -> None:
    """It is announced, and nothing is kept of it."""
    await broker.subscribe("news")
    assert await broker.publish("news", publication(7), NO_LOG) == NO_POSITION
    await witness.until_received(1)
    assert witness.received == [ReceivedPublication("news", Publication(Raw(b"7")), "")]


async def test_a_publication_may_skip_the_log(broker: Broker, witness: RecordingHandler) -> None:
    """It is announced without a position, and takes no offset from those after it."""
    await broker.subscribe("news")
    first = await broker.publish("news", publication(1), LOG)
    assert await broker.publish("news", NewPublication(Raw(b"2"), skip_history=True), LOG) == NO_POSITION
    second = await broker.publish("news", publication(3), LOG)
    assert second == (2, first.epoch)
    await witness.until_received(3)
    assert witness.received[1] == ReceivedPublication("news", Publication(Raw(b"2")), "")
    _, kept = await broker.read_history("news", ALL, LOG)
    assert [bytes(publication.data) for publication in kept] == [b"1", b"3"]


@pytest.mark.parametrize("options", [LOG, NO_LOG], ids=["log", "no log"])
@pytest.mark.parametrize("tags", [None, {"kind": "gâteau", "": "empty"}], ids=["no tags", "tags"])
@pytest.mark.parametrize(
    "info",
    [
        None,
        ClientInfo("42", "c1"),
        ClientInfo("", "c1", conn_info=Raw(b'{"n":1e999}')),
        ClientInfo("42", "c1", Raw(b'"\\u00e9"'), Raw(b"[ 1 ]")),
    ],
    ids=["nobody", "bare", "anonymous", "full"],
)
async def test_who_published_and_the_tags_travel_along(
    node: Node, info: ClientInfo | None, tags: dict[str, str] | None, options: ChannelOptions
) -> None:
    """As they were given, to listeners and readers."""
    await node.broker.subscribe("news")
    position = await node.broker.publish("news", NewPublication(Raw(b"1"), info, tags), options)
    expected = Publication(Raw(b"1"), position.offset, info, tags)
    await node.handler.until_received(1)
    assert node.handler.received[0].publication == expected
    if options is LOG:
        assert (await node.broker.read_history("news", ALL, LOG)).publications == [expected]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload[:24].decode())
async def test_payloads_arrive_byte_for_byte(
    broker: Broker, witness: RecordingHandler, payload: bytes
) -> None:
    """No number is rounded, no escape rewritten, no key sorted."""
    await broker.subscribe("news")
    await broker.publish("news", NewPublication(Raw(payload)), LOG)
    await broker.publish("news", NewPublication(Raw(payload)), NO_LOG)
    await witness.until_received(2)
    assert witness.payloads("news") == [payload, payload]
    _, kept = await broker.read_history("news", ALL, LOG)
    assert [bytes(publication.data) for publication in kept] == [payload]


async def test_nobody_need_listen(broker: Broker) -> None:
    """A log is written for those who come later."""
    position = await broker.publish("news", publication(1), LOG)
    assert (await broker.read_history("news", TOP_ONLY, LOG)).top == position
