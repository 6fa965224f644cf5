"""The events of a stream as bytes."""

from msgspec import Raw

from tocsin_server import errors
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.protocol.messages import ClientInfo, Position, PresenceChange, Publication, Push
from tocsin_server.transports.sse.events import EncodedBatch, disconnect_event, gap_event, opening_event
from tocsin_server.transports.sse.last_event_id import StreamPositions

START = Position(4, "abc")


def publication(offset: int) -> ChannelMessage:
    return ChannelMessage(Push("news", pub=Publication(Raw(b"%d" % offset), offset)), "abc" if offset else "")


def event(offset: int) -> bytes:
    position = b',"offset":%d' % offset if offset else b""
    return b'data: {"channel":"news","pub":{"data":%d%b}}\n\n' % (offset, position)


def test_the_opening_event_has_the_positions_and_the_reconnection_time() -> None:
    assert opening_event(StreamPositions([START, None]), 700) == b"id: 4@abc,\nretry: 700\n\n"


def test_a_gap_event_has_the_positions_after_the_gap() -> None:
    positions = StreamPositions([Position(9, "xyz")])
    assert gap_event("news", START, Position(9, "xyz"), positions) == (
        b"event: gap\nid: 9@xyz\n"
        b'data: {"channel":"news","from":{"offset":4,"epoch":"abc"},"to":{"offset":9,"epoch":"xyz"}}\n\n'
    )


def test_only_a_final_disconnect_event_has_an_id() -> None:
    """The id of another one stays that of the event before it, from which the client recovers."""
    assert disconnect_event(errors.SHUTDOWN) == (
        b'event: disconnect\ndata: {"code":3001,"reason":"shutdown"}\n\n'
    )
    assert disconnect_event(errors.FORCE_DISCONNECT) == (
        b'event: disconnect\nid: disconnect:3503\ndata: {"code":3503,"reason":"force disconnect"}\n\n'
    )


def test_a_batch_moves_the_position_of_each_stream_it_is_written_to() -> None:
    """Streams of the channel alone share the same bytes."""
    batch = EncodedBatch("news", [publication(5), publication(6)])
    first, second = StreamPositions([START]), StreamPositions([START])
    assert batch.with_ids(first, 0) == b"id: 5@abc\n" + event(5) + b"id: 6@abc\n" + event(6)
    assert batch.with_ids(second, 0) is batch.with_ids(first, 0)
    assert first.values == second.values == [Position(6, "abc")]
    assert second.last_event_id() == b"6@abc"


def test_a_batch_for_a_stream_of_several_channels_has_all_their_positions() -> None:
    positions = StreamPositions([Position(1, "xyz"), START])
    batch = EncodedBatch("news", [publication(5)])
    assert batch.with_ids(positions, 1) == b"id: 1@xyz,5@abc\n" + event(5)
    assert positions.values == [Position(1, "xyz"), Position(5, "abc")]


def test_a_batch_for_a_stream_without_a_position_has_no_ids() -> None:
    batch = EncodedBatch("news", [publication(5), publication(6)])
    assert batch.without_ids() == event(5) + event(6)
    assert len(batch) == len(batch.without_ids())


def test_a_message_without_an_offset_has_no_id() -> None:
    """It leaves the position where it is."""
    positions = StreamPositions([START])
    joined = Push("news", join=PresenceChange(ClientInfo("ann", "c1")))
    batch = EncodedBatch("news", [publication(5), publication(0), ChannelMessage(joined)])
    join_event = b'event: join\ndata: {"channel":"news","join":{"info":{"user":"ann","client":"c1"}}}\n\n'
    assert batch.with_ids(positions, 0) == b"id: 5@abc\n" + event(5) + event(0) + join_event
    assert positions.values == [Position(5, "abc")]
