"""One channel on one node: what each subscriber is delivered, and in how many writes."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from tests.server.core.recording_connection import (
    OffsetFraming,
    RecordingConnection,
    StoredHistory,
    deliver_all,
)
from tocsin_server.core.channel import BATCH_BYTES, HELD_LIMIT, Channel
from tocsin_server.core.positions import Continuity, History
from tocsin_server.protocol.messages import ClientInfo, Position, PresenceChange, Publication, Push

EPOCH = "abcdefgh"
JOIN = Push("news", join=PresenceChange(ClientInfo("ada", "c1")))
JOIN_LINE = b'{"push":{"channel":"news","join":{"info":{"user":"ada","client":"c1"}}}}'


def publication(offset: int = 0, data: bytes = b"1") -> Publication:
    return Publication(Raw(data), offset)


def add_subscriber(
    channel: Channel[Any], start: int = 0, receives_joins: bool = False, framing: OffsetFraming | None = None
) -> RecordingConnection:
    """Return a connection that goes live. Its client has everything up to offset `start`."""
    connection = RecordingConnection(framing) if framing else RecordingConnection()
    channel.begin_subscribe()
    channel.go_live(connection, start, receives_joins)
    return connection


def channel_at(offset: int) -> Channel[Any]:
    """Return a channel that has received everything up to `offset`."""
    channel: Channel[Any] = Channel("news")
    channel.tracker.set(Position(offset, EPOCH))
    return channel


# ---------------------------------------------------------------------------------------------------- batches


def test_queued_messages_leave_in_one_write() -> None:
    """A burst costs each subscriber one write, however many publications it has."""
    channel = channel_at(0)
    connection = add_subscriber(channel)
    for offset in (1, 2, 3):
        channel.receive(publication(offset), EPOCH)
    deliver_all(channel)
    assert (connection.received, connection.writes) == ([1, 2, 3], 1)


def test_a_subscriber_is_delivered_only_what_follows_its_subscription() -> None:
    """Messages that are queued when it goes live are not for it."""
    channel = channel_at(0)
    early = add_subscriber(channel)
    channel.receive(publication(1), EPOCH)
    late = add_subscriber(channel, start=1)
    channel.receive(publication(2), EPOCH)
    deliver_all(channel)
    assert (early.received, late.received) == ([1, 2], [2])


def test_publications_held_for_subscriptions_are_bounded() -> None:
    """If history ends before the first held publication, it must be read again."""
    channel = channel_at(0)
    add_subscriber(channel)
    channel.begin_subscribe()
    for offset in range(1, HELD_LIMIT + 2):
        channel.receive(publication(offset), EPOCH)
    assert channel.merge(History(Position(0, EPOCH))) is None
    assert channel.merge(History(Position(1, EPOCH))) is not None


def test_queued_messages_leave_in_one_batch_however_many_subscribe_meanwhile() -> None:
    """A subscriber that joins between two publications is delivered only the second one."""
    channel = channel_at(0)
    remaining = add_subscriber(channel)
    channel.receive(publication(1), EPOCH)
    for offset in (2, 3, 4):
        leaving = add_subscriber(channel, start=offset - 1)
        channel.receive(publication(offset), EPOCH)
        channel.unsubscribe(leaving)
    late = add_subscriber(channel, start=4)
    channel.receive(publication(5), EPOCH)
    batch = channel.take_batch()
    assert (len(batch.messages), channel.has_queued) == (5, False)
    for framing, subscribers, messages in batch.recipients:
        for subscriber in subscribers:
            subscriber.write(framing.pack(channel.name, messages))
    assert (remaining.received, remaining.writes) == ([1, 2, 3, 4, 5], 1)
    assert (late.received, late.writes) == ([5], 1)


def test_an_unsubscribe_does_not_divide_a_batch() -> None:
    """The remaining subscriber gets one write."""
    channel = channel_at(0)
    remaining, leaving = add_subscriber(channel), add_subscriber(channel)
    channel.receive(publication(1), EPOCH)
    channel.unsubscribe(leaving)
    channel.receive(publication(2), EPOCH)
    deliver_all(channel)
    assert (remaining.received, remaining.writes, leaving.received) == ([1, 2], 1, [])


def test_a_connection_that_unsubscribes_during_a_batch_is_delivered_nothing_more() -> None:
    """The batch was taken before, and is partly written."""
    channel = channel_at(0)
    leaving = add_subscriber(channel)
    channel.receive(publication(1), EPOCH)
    batch = channel.take_batch()
    channel.unsubscribe(leaving)
    for _framing, subscribers, _messages in batch.recipients:
        for subscriber in subscribers:
            subscriber.write([1])
    assert leaving.received == []


def test_a_batch_of_an_earlier_subscription_does_not_reach_the_next_one() -> None:
    """Each subscription of a connection is separate."""
    channel = channel_at(0)
    connection = add_subscriber(channel)
    channel.receive(publication(1), EPOCH)
    channel.unsubscribe(connection)
    channel.begin_subscribe()
    channel.go_live(connection, 1, receives_joins=False)
    channel.receive(publication(2), EPOCH)
    deliver_all(channel)
    assert connection.received == [2]


def test_messages_received_during_a_batch_leave_in_the_next_one() -> None:
    """A batch that was taken never changes."""
    channel = channel_at(0)
    add_subscriber(channel)
    channel.receive(publication(1), EPOCH)
    first = channel.take_batch()
    channel.receive(publication(2), EPOCH)
    second = channel.take_batch()
    assert [len(first.messages), len(second.messages), channel.has_queued] == [1, 1, False]


def test_a_full_batch_takes_no_further_messages() -> None:
    """So the writes of a burst stay far below a connection's queue limit."""
    channel = channel_at(0)
    connection = add_subscriber(channel)
    half = b'"' + b"x" * (BATCH_BYTES // 2) + b'"'
    for offset in (1, 2, 3, 4):
        channel.receive(publication(offset, half), EPOCH)
    deliver_all(channel)
    assert (connection.received, connection.writes) == ([1, 2, 3, 4], 2)


def test_a_channel_without_a_live_subscriber_queues_nothing() -> None:
    """Its position advances all the same."""
    channel = channel_at(0)
    channel.begin_subscribe()
    channel.receive(publication(1), EPOCH)
    assert (channel.has_queued, channel.tracker.offset) == (False, 1)


def test_each_framing_packs_once_for_all_its_subscribers() -> None:
    """Subscribers of two transports get the same messages; each transport packs them for itself."""
    packings: list[OffsetFraming] = []

    class Counting(OffsetFraming):
        def pack(self, channel: str, messages: object) -> list[int | bytes]:
            packings.append(self)
            return super().pack(channel, messages)  # type: ignore[arg-type]

    one, other = Counting(), Counting()
    channel = channel_at(0)
    connections = [add_subscriber(channel, framing=framing) for framing in (one, one, other)]
    channel.receive(publication(1), EPOCH)
    deliver_all(channel)
    assert ([connection.received for connection in connections], packings) == ([[1]] * 3, [one, other])


# ------------------------------------------------------------------------------------------- joins and leaves


def test_joins_reach_only_subscribers_that_receive_joins() -> None:
    """Each subscriber has its own setting."""
    channel = channel_at(0)
    interested, other = add_subscriber(channel, receives_joins=True), add_subscriber(channel)
    channel.receive_join_leave(JOIN)
    deliver_all(channel)
    assert (interested.received, other.received) == ([JOIN_LINE], [])


def test_a_join_keeps_its_order_among_publications() -> None:
    """It is delivered between the publications before it and after it."""
    channel = channel_at(0)
    interested, other = add_subscriber(channel, receives_joins=True), add_subscriber(channel)
    channel.receive(publication(1), EPOCH)
    channel.receive_join_leave(JOIN)
    channel.receive(publication(2), EPOCH)
    deliver_all(channel)
    assert (interested.received, other.received) == ([1, JOIN_LINE, 2], [1, 2])


def test_a_join_that_all_receive_divides_no_subscribers() -> None:
    """Then a batch has one group, however many subscribers there are."""
    channel: Channel[Any] = Channel("news")
    for _ in range(3):
        add_subscriber(channel, receives_joins=True)
    channel.receive_join_leave(JOIN)
    batch = channel.take_batch()
    assert [len(subscribers) for _, subscribers, _ in batch.recipients] == [3]


def test_a_subscriber_that_leaves_before_the_batch_is_taken_is_not_in_it() -> None:
    """Also if it went live while messages were queued."""
    channel: Channel[Any] = Channel("news")
    stays = add_subscriber(channel, receives_joins=True)
    channel.receive_join_leave(JOIN)
    late = add_subscriber(channel, receives_joins=True)
    channel.receive_join_leave(JOIN)
    channel.unsubscribe(late)
    deliver_all(channel)
    assert (stays.received, late.received) == ([JOIN_LINE] * 2, [])


def test_a_join_without_a_receiver_is_not_queued() -> None:
    """No empty batch begins."""
    channel = channel_at(0)
    add_subscriber(channel)
    channel.receive_join_leave(JOIN)
    assert not channel.has_queued


# -------------------------------------------------------------------------------------------------- positions


def test_the_first_publication_sets_an_unknown_position() -> None:
    """A gap after it is recognized."""
    channel: Channel[Any] = Channel("news")
    assert [channel.receive(publication(7), EPOCH), channel.receive(publication(9), EPOCH)] == [
        Continuity.NEXT,
        Continuity.AHEAD,
    ]
    assert channel.tracker.position == Position(7, EPOCH)


def test_a_publication_without_an_offset_does_not_change_the_position() -> None:
    """It is delivered all the same."""
    channel: Channel[Any] = Channel("news")
    connection = add_subscriber(channel)
    assert channel.receive(publication(), "") is Continuity.NEXT
    deliver_all(channel)
    assert (connection.received, channel.tracker.is_known) == ([0], False)


def test_only_the_next_publication_is_delivered() -> None:
    """A repetition, a gap and another epoch are returned to the caller, and reach no subscriber."""
    channel = channel_at(4)
    connection = add_subscriber(channel, start=4)
    results = [
        channel.receive(publication(4), EPOCH),
        channel.receive(publication(6), EPOCH),
        channel.receive(publication(5), "other"),
    ]
    deliver_all(channel)
    assert (results, connection.received) == ([Continuity.OLD, Continuity.AHEAD, Continuity.OTHER_EPOCH], [])


def test_publications_received_during_a_subscribe_continue_the_history_read() -> None:
    """History was read at 2; publications 3 and 4 were received before the answer."""
    channel = channel_at(2)
    channel.begin_subscribe()
    channel.receive(publication(3), EPOCH)
    channel.receive(publication(4), EPOCH)
    merged = channel.merge(History(Position(2, EPOCH), [publication(2)]))
    assert merged is not None
    assert (merged.top.offset, [publication.offset for publication in merged.publications]) == (4, [2, 3, 4])


def test_the_history_read_sets_an_unknown_position() -> None:
    """A gap right after the first subscription is recognized."""
    channel: Channel[Any] = Channel("news")
    channel.begin_subscribe()
    channel.merge(History(Position(5, EPOCH)))
    assert channel.receive(publication(7), EPOCH) is Continuity.AHEAD


def test_a_history_that_ends_before_the_held_publications_must_be_read_again() -> None:
    """History was read at 2; the channel is at 9 and has held nothing since."""
    channel = channel_at(9)
    channel.begin_subscribe()
    assert channel.merge(History(Position(2, EPOCH))) is None
    assert channel.merge(History(Position(9, EPOCH))) == History(Position(9, EPOCH))


def test_held_publications_of_another_epoch_do_not_continue_a_history() -> None:
    """Offset 3 of one history is not offset 3 of another."""
    channel = channel_at(2)
    channel.begin_subscribe()
    channel.receive(publication(3), EPOCH)
    merged = channel.merge(History(Position(2, "replaced"), [publication(1), publication(2)]))
    assert merged == History(Position(2, "replaced"), [publication(1), publication(2)])


def test_a_subscriber_ahead_of_the_channel_is_delivered_nothing_twice() -> None:
    """Its reply reached 5 while this node has received 3; publications 4 and 5 are for the others only."""
    channel = channel_at(3)
    behind, ahead = add_subscriber(channel, start=3), add_subscriber(channel, start=5)
    for offset in (4, 5, 6):
        channel.receive(publication(offset), EPOCH)
    deliver_all(channel)
    assert (behind.received, ahead.received) == ([4, 5, 6], [6])


def test_a_subscriber_ahead_of_the_channel_counts() -> None:
    """It is listed and counted, and keeps the channel."""
    channel = channel_at(3)
    ahead = add_subscriber(channel, start=5)
    assert (channel.is_wanted, len(channel), channel.connections) == (True, 1, [ahead])
    channel.unsubscribe(ahead)
    assert (channel.is_wanted, len(channel), channel.connections) == (False, 0, [])
    channel.receive(publication(4), EPOCH)
    channel.receive(publication(5), EPOCH)
    assert len(channel) == 0


def test_a_cancelled_subscription_leaves_publications_held_for_another() -> None:
    """The other subscription is still being set up."""
    channel = channel_at(0)
    channel.begin_subscribe()
    channel.begin_subscribe()
    channel.receive(publication(1), EPOCH)
    channel.unsubscribe(RecordingConnection())
    assert channel.merge(History(Position(0, EPOCH))) == History(Position(1, EPOCH), [publication(1)])
    channel.unsubscribe(RecordingConnection())
    assert not channel.is_wanted


def test_publications_are_held_only_while_a_subscription_is_set_up() -> None:
    """The next subscription begins without held publications."""
    channel = channel_at(0)
    channel.begin_subscribe()
    channel.receive(publication(1), EPOCH)
    channel.go_live(RecordingConnection(), 1, receives_joins=False)
    channel.receive(publication(2), EPOCH)
    channel.begin_subscribe()
    assert channel.merge(History(Position(1, EPOCH))) is None
    assert channel.merge(History(Position(2, EPOCH))) == History(Position(2, EPOCH))


# ----------------------------------------------------------------------------------------------------- resets


def test_a_reset_returns_the_connections_that_miss_publications() -> None:
    """The gap reaches from 3 to 8. A client whose reply reached 8 or further misses nothing."""
    channel = channel_at(3)
    missing, short, exact, beyond = (add_subscriber(channel, start=start) for start in (3, 5, 8, 9))
    assert channel.reset(Position(8, EPOCH)) == [missing, short]
    for connection in (missing, short):
        channel.unsubscribe(connection)
    channel.receive(publication(9), EPOCH)
    channel.receive(publication(10), EPOCH)
    deliver_all(channel)
    assert (exact.received, beyond.received) == ([9, 10], [10])


def test_a_reset_to_another_epoch_returns_every_connection() -> None:
    """Offsets of two epochs do not compare."""
    channel = channel_at(3)
    connections = [add_subscriber(channel, start=start) for start in (3, 5)]
    assert channel.reset(Position(5, "replaced")) == connections


def test_a_channel_continues_from_the_position_of_its_reset() -> None:
    """The publication after that position is the next one."""
    history = StoredHistory(size=2)
    channel = channel_at(1)
    for _ in range(6):
        history.append()
    channel.reset(history.read().top)
    assert channel.receive(history.append(), history.epoch) is Continuity.NEXT
