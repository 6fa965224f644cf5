"""What is kept for a subscriber whose client is behind, and what it is delivered once it has caught up."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from tests.server.core.playbook import EPOCH
from tests.server.core.recording_connection import RecordingConnection, deliver_all
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.channel import Channel
from tocsin_server.core.kept_messages import KeptMessages
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import ClientInfo, Position, PresenceChange, Publication, Push

JOIN = Push("news", join=PresenceChange(ClientInfo("ada", "c1")))
DROP_OLDEST = ChannelOptions(slow_policy="drop_oldest")
LATEST = ChannelOptions(slow_policy="latest")
BY_ROOM = ChannelOptions(slow_policy="latest", slow_key="room")

SIZE = len("news") + Publication(Raw(b"1")).size
"""The size of one publication's message."""


def receive(channel: Channel[Any], *offsets: int, room: str = "") -> None:
    tags = {"room": room} if room else None
    for offset in offsets:
        channel.receive(Publication(Raw(b"1"), offset, tags=tags), EPOCH)
    deliver_all(channel)


def subscribed(*, receives_joins: bool = False) -> tuple[Channel[Any], RecordingConnection]:
    """A channel at offset 0, and a live subscriber."""
    channel: Channel[Any] = Channel("news")
    channel.tracker.set(Position(0, EPOCH))
    connection = RecordingConnection()
    channel.begin_subscribe()
    channel.go_live(connection, 0, receives_joins)
    return channel, connection


def behind(options: ChannelOptions, **facts: bool) -> tuple[Channel[Any], RecordingConnection]:
    """A channel whose subscriber has got publication 1, and is behind since."""
    channel, connection = subscribed(**facts)
    receive(channel, 1)
    channel.keep_aside(connection, options)
    return channel, connection


def release(channel: Channel[Any], connection: RecordingConnection) -> KeptMessages:
    """Write what was kept."""
    kept = channel.release(connection)
    assert kept is not None
    connection.write(connection.framing.pack("news", kept.messages))
    return kept


def test_nothing_is_dropped_up_to_the_limit() -> None:
    """The client gets everything in order, and what follows."""
    limited = DROP_OLDEST.model_copy(update={"slow_limit_bytes": 3 * SIZE})
    channel, connection = behind(limited)
    receive(channel, 2, 3, 4)
    assert connection.received == [1]
    kept = release(channel, connection)
    assert (kept.dropped, kept.superseded, kept.size) == (0, 0, 3 * SIZE)
    receive(channel, 5)
    assert connection.received == [1, 2, 3, 4, 5]


def test_the_oldest_are_dropped_above_the_limit() -> None:
    """The newest is kept, however large it is."""
    limited = DROP_OLDEST.model_copy(update={"slow_limit_bytes": 3 * SIZE})
    channel, connection = behind(limited)
    receive(channel, 2, 3, 4, 5)
    kept = release(channel, connection)
    assert (connection.received, kept.dropped) == ([1, 3, 4, 5], 1)
    one = DROP_OLDEST.model_copy(update={"slow_limit_bytes": 1})
    channel, connection = behind(one)
    receive(channel, 2, 3)
    release(channel, connection)
    assert connection.received == [1, 3]


def test_only_the_newest_publication_of_a_channel_is_kept() -> None:
    channel, connection = behind(LATEST)
    receive(channel, 2, 3, 4)
    kept = release(channel, connection)
    assert (connection.received, kept.superseded, kept.dropped) == ([1, 4], 2, 0)
    assert kept.size == SIZE


def test_only_the_newest_publication_of_a_key_is_kept() -> None:
    """In their order. Publications without the tag have one key."""
    channel, connection = behind(BY_ROOM)
    for offset, room in enumerate(["a", "b", "", "a", "c", ""], start=2):
        receive(channel, offset, room=room)
    kept = release(channel, connection)
    assert (connection.received, kept.superseded) == ([1, 3, 5, 6, 7], 2)


def test_joins_are_kept_for_a_subscriber_that_receives_them() -> None:
    for receives_joins in (True, False):
        channel, connection = behind(LATEST, receives_joins=receives_joins)
        channel.receive_join_leave(JOIN)
        receive(channel, 2, 3)
        release(channel, connection)
        line = JSON.wrap_push(JSON.encode_push(JOIN))
        assert connection.received == ([1, line, 3] if receives_joins else [1, 3])


def test_messages_that_are_queued_when_a_subscriber_is_released_are_delivered_to_it_once() -> None:
    """They were not kept yet."""
    channel, connection = behind(DROP_OLDEST)
    receive(channel, 2)
    channel.receive(Publication(Raw(b"1"), 3), EPOCH)
    release(channel, connection)
    deliver_all(channel)
    assert connection.received == [1, 2, 3]


def test_messages_before_a_subscription_are_not_kept_for_it() -> None:
    """They were queued when it went live."""
    channel, _ = subscribed()
    channel.receive(Publication(Raw(b"1"), 1), EPOCH)
    late = RecordingConnection()
    channel.begin_subscribe()
    channel.go_live(late, 1, receives_joins=False)
    channel.keep_aside(late, DROP_OLDEST)
    receive(channel, 2)
    release(channel, late)
    assert late.received == [2]


def test_a_batch_that_is_being_written_is_not_kept() -> None:
    """A subscriber that is behind in the middle of a batch gets the batch. Later messages are kept."""
    channel, connection = subscribed()
    channel.receive(Publication(Raw(b"1"), 1), EPOCH)
    ((framing, (subscriber,), messages),) = channel.take_batch().recipients
    channel.keep_aside(connection, DROP_OLDEST)
    subscriber.write(framing.pack("news", messages))
    receive(channel, 2)
    release(channel, connection)
    assert connection.received == [1, 2]


def test_a_join_is_kept_only_for_subscribers_that_receive_joins() -> None:
    """And a subscriber that receives none gets none while another is behind."""
    channel, connection = behind(DROP_OLDEST, receives_joins=True)
    other = RecordingConnection()
    channel.begin_subscribe()
    channel.go_live(other, 1, receives_joins=False)
    channel.receive_join_leave(JOIN)
    receive(channel, 2)
    release(channel, connection)
    assert other.received == [2]
    assert connection.received == [1, JSON.wrap_push(JSON.encode_push(JOIN)), 2]


def test_a_subscriber_whose_messages_are_kept_counts_and_can_leave() -> None:
    channel, connection = behind(DROP_OLDEST)
    assert (len(channel), channel.is_wanted) == (1, True)
    assert channel.reset(Position(9, EPOCH)) == [connection]
    receive(channel, 10)
    channel.unsubscribe(connection)
    assert (len(channel), channel.is_wanted) == (0, False)
    assert channel.release(connection) is None
    assert connection.received == [1]


def test_only_a_live_subscriber_is_kept_aside_and_only_once() -> None:
    channel, connection = behind(DROP_OLDEST)
    receive(channel, 2)
    channel.keep_aside(connection, DROP_OLDEST)
    channel.keep_aside(RecordingConnection(), DROP_OLDEST)
    release(channel, connection)
    assert connection.received == [1, 2]
