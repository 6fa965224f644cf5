"""One channel on one node: what each peer hears of it, and in which writes."""

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
JOINED = Push("news", join=PresenceChange(ClientInfo("ada", "c1")))
JOIN_LINE = b'{"push":{"channel":"news","join":{"info":{"user":"ada","client":"c1"}}}}'


def pub(offset: int = 0, data: bytes = b"1") -> Publication:
    return Publication(Raw(data), offset)


def admit(
    channel: Channel[Any], start: int = 0, receives_joins: bool = False, framing: OffsetFraming | None = None
) -> RecordingConnection:
    """A peer that has entered with everything up to `start`."""
    ear = RecordingConnection(framing) if framing else RecordingConnection()
    channel.begin_subscribe()
    channel.go_live(ear, start, receives_joins)
    return ear


def settled(offset: int) -> Channel[Any]:
    """A channel that has heard everything up to `offset`."""
    channel: Channel[Any] = Channel("news")
    channel.tracker.set(Position(offset, EPOCH))
    return channel


# ---------------------------------------------------------------------------------------------------- batches


def test_what_waits_for_the_same_peers_leaves_in_one_write() -> None:
    """A burst costs each peer one write, however many publications it has."""
    channel = settled(0)
    ear = admit(channel)
    for offset in (1, 2, 3):
        channel.receive(pub(offset), EPOCH)
    deliver_all(channel)
    assert (ear.received, ear.writes) == ([1, 2, 3], 1)


def test_a_batch_takes_nothing_more_once_somebody_came() -> None:
    """A newcomer hears what comes after it entered, though an unwritten batch holds what came before."""
    channel = settled(0)
    early = admit(channel)
    channel.receive(pub(1), EPOCH)
    late = admit(channel, start=1)
    channel.receive(pub(2), EPOCH)
    deliver_all(channel)
    assert (early.received, late.received) == ([1, 2], [2])


def test_what_is_held_for_newcomers_is_bounded() -> None:
    """A log read so long ago that what followed it is no longer held has to be read again."""
    channel = settled(0)
    admit(channel)
    channel.begin_subscribe()
    for offset in range(1, HELD_LIMIT + 2):
        channel.receive(pub(offset), EPOCH)
    assert channel.merge(History(Position(0, EPOCH))) is None
    assert channel.merge(History(Position(1, EPOCH))) is not None


def test_what_waits_leaves_joined_however_many_come_and_go() -> None:
    """Who came between two publications gets the second only, and nobody else gets more writes for it."""
    channel = settled(0)
    staying = admit(channel)
    channel.receive(pub(1), EPOCH)
    for offset in (2, 3, 4):
        leaving = admit(channel, start=offset - 1)
        channel.receive(pub(offset), EPOCH)
        channel.unsubscribe(leaving)
    coming = admit(channel, start=4)
    channel.receive(pub(5), EPOCH)
    batch = channel.take_batch()
    assert (len(batch.messages), channel.has_queued) == (5, False)
    for framing, members, items in batch.recipients:
        for member in members:
            member.write(framing.pack(channel.name, items))
    assert (staying.received, staying.writes) == ([1, 2, 3, 4, 5], 1)
    assert (coming.received, coming.writes) == ([5], 1)


def test_what_waits_is_written_once_for_who_stays_when_somebody_left() -> None:
    """A departure divides nothing."""
    channel = settled(0)
    staying, leaving = admit(channel), admit(channel)
    channel.receive(pub(1), EPOCH)
    channel.unsubscribe(leaving)
    channel.receive(pub(2), EPOCH)
    deliver_all(channel)
    assert (staying.received, staying.writes, leaving.received) == ([1, 2], 1, [])


def test_a_peer_that_leaves_in_the_middle_of_a_round_hears_nothing_more_of_it() -> None:
    """The batch is already taken and partly written when it goes."""
    channel = settled(0)
    leaving = admit(channel)
    channel.receive(pub(1), EPOCH)
    batch = channel.take_batch()
    channel.unsubscribe(leaving)
    for _framing, members, _items in batch.recipients:
        for member in members:
            member.write([1])
    assert leaving.received == []


def test_a_peer_that_came_back_hears_nothing_meant_for_its_former_place() -> None:
    """Each entrance is a place of its own: a batch from before the departure does not reach it."""
    channel = settled(0)
    ear = admit(channel)
    channel.receive(pub(1), EPOCH)
    channel.unsubscribe(ear)
    channel.begin_subscribe()
    channel.go_live(ear, 1, receives_joins=False)
    channel.receive(pub(2), EPOCH)
    deliver_all(channel)
    assert ear.received == [2]


def test_what_comes_while_a_batch_is_being_written_leaves_in_the_next() -> None:
    """A taken batch is never changed."""
    channel = settled(0)
    admit(channel)
    channel.receive(pub(1), EPOCH)
    first = channel.take_batch()
    channel.receive(pub(2), EPOCH)
    second = channel.take_batch()
    assert [len(first.messages), len(second.messages), channel.has_queued] == [1, 1, False]


def test_a_full_batch_takes_nothing_more() -> None:
    """So a burst leaves in writes well below what may wait for one peer."""
    channel = settled(0)
    ear = admit(channel)
    half = b'"' + b"x" * (BATCH_BYTES // 2) + b'"'
    for offset in (1, 2, 3, 4):
        channel.receive(pub(offset, half), EPOCH)
    deliver_all(channel)
    assert (ear.received, ear.writes) == ([1, 2, 3, 4], 2)


def test_nothing_waits_where_nobody_listens() -> None:
    """A channel that is only being entered writes to nobody, yet its view of the log moves on."""
    channel = settled(0)
    channel.begin_subscribe()
    channel.receive(pub(1), EPOCH)
    assert (channel.has_queued, channel.tracker.offset) == (False, 1)


def test_each_framing_is_packed_once_for_all_its_peers() -> None:
    """Peers of two transports hear the same; each transport packs for itself."""
    packed: list[OffsetFraming] = []

    class Counting(OffsetFraming):
        def pack(self, channel: str, items: object) -> list[int | bytes]:
            packed.append(self)
            return super().pack(channel, items)  # type: ignore[arg-type]

    one, other = Counting(), Counting()
    channel = settled(0)
    ears = [admit(channel, framing=framing) for framing in (one, one, other)]
    channel.receive(pub(1), EPOCH)
    deliver_all(channel)
    assert ([ear.received for ear in ears], packed) == ([[1]] * 3, [one, other])


# ------------------------------------------------------------------------------------------- joins and leaves


def test_joins_reach_only_those_who_hear_joins() -> None:
    """Whether a peer hears joins is its own."""
    channel = settled(0)
    curious, other = admit(channel, receives_joins=True), admit(channel)
    channel.receive_join_leave(JOINED)
    deliver_all(channel)
    assert (curious.received, other.received) == ([JOIN_LINE], [])


def test_a_join_keeps_its_place_between_publications() -> None:
    """Nothing overtakes it, and what comes after it is not joined to it."""
    channel = settled(0)
    curious, other = admit(channel, receives_joins=True), admit(channel)
    channel.receive(pub(1), EPOCH)
    channel.receive_join_leave(JOINED)
    channel.receive(pub(2), EPOCH)
    deliver_all(channel)
    assert (curious.received, other.received) == ([1, JOIN_LINE, 2], [1, 2])


def test_a_join_that_nobody_hears_makes_nobody_wait() -> None:
    """No empty batch is begun."""
    channel = settled(0)
    admit(channel)
    channel.receive_join_leave(JOINED)
    assert not channel.has_queued


# -------------------------------------------------------------------------------------------------- positions


def test_the_first_publication_heard_settles_an_unsettled_stream() -> None:
    """A channel nobody reads needs no position to begin with; holes are seen from then on."""
    channel: Channel[Any] = Channel("news")
    assert [channel.receive(pub(7), EPOCH), channel.receive(pub(9), EPOCH)] == [
        Continuity.NEXT,
        Continuity.GAP,
    ]
    assert channel.tracker.position == Position(7, EPOCH)


def test_a_publication_without_an_offset_neither_settles_nor_moves_the_stream() -> None:
    """It is written all the same."""
    channel: Channel[Any] = Channel("news")
    ear = admit(channel)
    assert channel.receive(pub(), "") is Continuity.NEXT
    deliver_all(channel)
    assert (ear.received, channel.tracker.is_known) == ([0], False)


def test_only_what_continues_the_stream_is_written() -> None:
    """A repetition, a leap and a foreign epoch are reported to the caller and reach nobody."""
    channel = settled(4)
    ear = admit(channel, start=4)
    verdicts = [
        channel.receive(pub(4), EPOCH),
        channel.receive(pub(6), EPOCH),
        channel.receive(pub(5), "other"),
    ]
    deliver_all(channel)
    assert (verdicts, ear.received) == ([Continuity.OLD, Continuity.GAP, Continuity.OTHER_EPOCH], [])


def test_what_is_heard_while_entering_continues_what_was_read() -> None:
    """The log was read at 2; 3 and 4 were heard before the answer came."""
    channel = settled(2)
    channel.begin_subscribe()
    channel.receive(pub(3), EPOCH)
    channel.receive(pub(4), EPOCH)
    merged = channel.merge(History(Position(2, EPOCH), [pub(2)]))
    assert merged is not None
    assert (merged.top.offset, [publication.offset for publication in merged.publications]) == (4, [2, 3, 4])


def test_what_was_read_settles_a_channel_that_has_heard_nothing() -> None:
    """So a hole right after the first subscription is seen."""
    channel: Channel[Any] = Channel("news")
    channel.begin_subscribe()
    channel.merge(History(Position(5, EPOCH)))
    assert channel.receive(pub(7), EPOCH) is Continuity.GAP


def test_a_read_from_before_a_hole_has_to_be_repeated() -> None:
    """The log was read at 2, but what is heard has gone on to 9 without being held since."""
    channel = settled(9)
    channel.begin_subscribe()
    assert channel.merge(History(Position(2, EPOCH))) is None
    assert channel.merge(History(Position(9, EPOCH))) == History(Position(9, EPOCH), [])


def test_what_was_held_of_a_former_epoch_does_not_continue_the_log_of_a_new_one() -> None:
    """Offset 3 of one log is not offset 3 of the other."""
    channel = settled(2)
    channel.begin_subscribe()
    channel.receive(pub(3), EPOCH)
    merged = channel.merge(History(Position(2, "replaced"), [pub(1), pub(2)]))
    assert merged == History(Position(2, "replaced"), [pub(1), pub(2)])


def test_a_peer_ahead_of_what_was_heard_hears_nothing_that_it_was_told_already() -> None:
    """The log told it of 5 while this node has heard 3: 4 and 5 are for the others only."""
    channel = settled(3)
    behind, ahead = admit(channel, start=3), admit(channel, start=5)
    for offset in (4, 5, 6):
        channel.receive(pub(offset), EPOCH)
    deliver_all(channel)
    assert (behind.received, ahead.received) == ([4, 5, 6], [6])


def test_a_peer_that_is_ahead_counts_like_any_other() -> None:
    """It wants the channel, is listed and counted, so nobody else's departure closes the channel under it."""
    channel = settled(3)
    ahead = admit(channel, start=5)
    assert (channel.is_wanted, len(channel), channel.connections) == (True, 1, [ahead])
    channel.unsubscribe(ahead)
    assert (channel.is_wanted, len(channel), channel.connections) == (False, 0, [])
    channel.receive(pub(4), EPOCH)
    channel.receive(pub(5), EPOCH)
    assert len(channel) == 0


def test_leaving_before_admission_gives_back_only_what_was_held() -> None:
    """Another peer that is still entering goes on holding."""
    channel = settled(0)
    channel.begin_subscribe()
    channel.begin_subscribe()
    channel.receive(pub(1), EPOCH)
    channel.unsubscribe(RecordingConnection())
    assert channel.merge(History(Position(0, EPOCH))) == History(Position(1, EPOCH), [pub(1)])
    channel.unsubscribe(RecordingConnection())
    assert not channel.is_wanted


def test_nothing_is_held_once_nobody_is_entering() -> None:
    """Whoever enters next begins with an empty hand."""
    channel = settled(0)
    channel.begin_subscribe()
    channel.receive(pub(1), EPOCH)
    channel.go_live(RecordingConnection(), 1, receives_joins=False)
    channel.receive(pub(2), EPOCH)
    channel.begin_subscribe()
    assert channel.merge(History(Position(1, EPOCH))) is None
    assert channel.merge(History(Position(2, EPOCH))) == History(Position(2, EPOCH), [])


# --------------------------------------------------------------------------------------------------- restarts


def test_a_restart_names_everybody_who_was_not_told_everything() -> None:
    """At 3 a hole up to 8 opened that the log cannot mend. Whoever entered at 8 or beyond misses nothing."""
    channel = settled(3)
    missing, short, exact, beyond = (admit(channel, start=start) for start in (3, 5, 8, 9))
    assert channel.reset(Position(8, EPOCH)) == [missing, short]
    for ear in (missing, short):
        channel.unsubscribe(ear)
    channel.receive(pub(9), EPOCH)
    channel.receive(pub(10), EPOCH)
    deliver_all(channel)
    assert (exact.received, beyond.received) == ([9, 10], [10])


def test_a_restart_in_another_epoch_breaks_everybody() -> None:
    """Offsets of two logs do not compare, so nobody's view continues."""
    channel = settled(3)
    ears = [admit(channel, start=start) for start in (3, 5)]
    assert channel.reset(Position(5, "replaced")) == ears


def test_a_channel_hears_on_from_where_it_was_restarted() -> None:
    """What follows the new position is the next thing it hears."""
    log = StoredHistory(size=2)
    channel = settled(1)
    for _ in range(6):
        log.append()
    channel.reset(log.read().top)
    assert channel.receive(log.append(), log.epoch) is Continuity.NEXT
