"""A subscriber that catches up gets what it missed in pages, then joins the others without a gap."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from tests.server.core.playbook import EPOCH, history_at
from tests.server.core.recording_connection import RecordingConnection, deliver_all
from tocsin_server.core.channel import HELD_BYTES, HELD_LIMIT, Channel
from tocsin_server.core.positions import History
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import ClientInfo, Position, PresenceChange, Publication, Push

JOIN = Push("news", join=PresenceChange(ClientInfo("ada", "c1")))


def receive(channel: Channel[Any], *offsets: int, data: bytes = b"1") -> None:
    for offset in offsets:
        channel.receive(Publication(Raw(data), offset), EPOCH)


def catching_up(
    top: int, start: int, *, receives_joins: bool = False
) -> tuple[Channel[Any], RecordingConnection]:
    """A channel at `top`, and a subscriber that has everything up to `start`."""
    channel: Channel[Any] = Channel("news")
    channel.tracker.set(Position(top, EPOCH))
    connection = RecordingConnection()
    channel.begin_subscribe()
    channel.go_live(connection, start, receives_joins, catches_up=True)
    return channel, connection


def add(channel: Channel[Any], connection: RecordingConnection, page: History, **options: bool) -> str:
    """Add a page and write it. Returns `more`, `complete` or `gap`."""
    added = channel.catch_up(connection, page, **options)
    if added.messages:
        connection.write(connection.framing.pack("news", added.messages))
    return "gap" if added.has_gap else "complete" if added.is_complete else "more"


def test_pages_follow_each_other_up_to_the_top() -> None:
    """Until the last page nothing else of the channel is delivered; what is published then is."""
    channel, connection = catching_up(5, 1)
    assert add(channel, connection, history_at(5, 2, 3)) == "more"
    receive(channel, 6)
    deliver_all(channel)
    assert connection.received == [2, 3]
    assert channel.catching_up_from(connection) == 3
    assert add(channel, connection, history_at(6, 4, 5, 6)) == "complete"
    assert channel.catching_up_from(connection) is None
    receive(channel, 7)
    deliver_all(channel)
    assert connection.received == [2, 3, 4, 5, 6, 7]


def test_the_last_page_is_continued_by_what_was_received_meanwhile() -> None:
    """Of those, none is delivered a second time, although it is queued for the other subscribers."""
    channel, connection = catching_up(3, 1)
    channel.begin_subscribe()
    other = RecordingConnection()
    channel.go_live(other, 3, receives_joins=False)
    receive(channel, 4, 5)
    assert add(channel, connection, history_at(3, 2, 3)) == "complete"
    receive(channel, 6)
    deliver_all(channel)
    assert connection.received == [2, 3, 4, 5, 6]
    assert other.received == [4, 5, 6]


def test_a_page_beyond_what_the_node_received_waits_for_the_node() -> None:
    """It has publications that the pub/sub connection has not delivered yet."""
    channel, connection = catching_up(3, 1)
    assert add(channel, connection, history_at(5, 2, 3, 4, 5)) == "complete"
    receive(channel, 4, 5, 6)
    deliver_all(channel)
    assert connection.received == [2, 3, 4, 5, 6]


def test_a_page_that_ends_before_what_the_node_received_is_not_the_last() -> None:
    """Too many were received to be held, so history must be read once more."""
    channel, connection = catching_up(2, 1)
    receive(channel, *range(3, HELD_LIMIT + 4))
    assert add(channel, connection, history_at(2, 2)) == "more"
    assert channel.catching_up_from(connection) == 2


def test_publications_that_history_no_longer_holds_are_a_gap() -> None:
    """Also if it holds none, or is another one."""
    replaced = History(Position(5, "replaced"), history_at(5, 2, 3).publications)
    for page in (history_at(5, 3, 4, 5), history_at(5), replaced):
        channel, connection = catching_up(5, 1)
        assert add(channel, connection, page) == "gap"


def test_superseded_publications_are_no_gap() -> None:
    """In cache mode only the newest publication counts."""
    channel, connection = catching_up(5, 1)
    assert add(channel, connection, history_at(5, 4, 5), may_skip=True) == "complete"
    assert connection.received == [4, 5]


def test_joins_follow_the_last_page() -> None:
    """For a subscriber that receives joins."""
    for receives_joins in (True, False):
        channel, connection = catching_up(2, 1, receives_joins=receives_joins)
        channel.receive_join_leave(JOIN)
        assert add(channel, connection, history_at(2, 2)) == "complete"
        line = JSON.wrap_push(JSON.encode_push(JOIN))
        assert connection.received == [2, line] if receives_joins else [2]


def test_a_subscriber_that_catches_up_counts_and_can_leave() -> None:
    """It is wanted, reset with the others, and nothing of it stays."""
    channel, connection = catching_up(5, 1)
    assert len(channel) == 1
    assert channel.reset(Position(9, EPOCH)) == [connection]
    receive(channel, 10)
    assert channel.held_bytes == 1
    channel.unsubscribe(connection)
    assert (len(channel), channel.is_wanted, channel.held_bytes) == (0, False, 0)


def test_publications_are_held_up_to_a_limit_in_bytes() -> None:
    """At the limit all are held; above it the oldest is dropped."""
    channel, _ = catching_up(0, 0)
    receive(channel, 1, 2, data=b"x" * (HELD_BYTES // 2))
    assert channel.held_bytes == HELD_BYTES
    receive(channel, 3)
    assert channel.held_bytes == HELD_BYTES // 2 + 1
    receive(channel, 4, data=b"x" * 2 * HELD_BYTES)
    assert channel.held_bytes == 2 * HELD_BYTES, "one publication is always held"
