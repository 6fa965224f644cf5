"""Position arithmetic, against models that count with their fingers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.core.playbook import EPOCH, history_at
from tests.server.core.recording_connection import StoredHistory
from tocsin_server.core.positions import (
    Continuity,
    History,
    PositionTracker,
    Recovery,
    merge,
    recover,
    recover_latest,
)
from tocsin_server.protocol.messages import Position

counts = st.integers(min_value=0, max_value=12)
epochs = st.sampled_from(["", EPOCH, "replaced"])


def log(published: int, size: int, is_expired: bool) -> StoredHistory:
    """A log after so many publications."""
    kept = StoredHistory(size, EPOCH)
    for _ in range(published):
        kept.append()
    if is_expired:
        kept.kept = []
    return kept


def offsets(recovery: Recovery | History) -> list[int]:
    return [publication.offset for publication in recovery.publications]


# ---------------------------------------------------------------------------------------------------- recover


@given(counts, st.integers(1, 12), st.booleans(), counts, epochs, st.integers(1, 6))
def test_recovery_gives_all_that_was_missed_or_nothing(
    published: int, size: int, is_expired: bool, offset: int, epoch: str, limit: int
) -> None:
    """The model: everything after the client's offset, if it is all still there and within the limit."""
    kept = log(published, size, is_expired)
    history = kept.read(offset)
    recovery = recover(Position(offset, epoch), History(history.top, history.publications[:limit]))
    missed = list(range(offset + 1, published + 1))
    still_there = {publication.offset for publication in kept.kept}
    is_possible = epoch in ("", EPOCH) and offset <= published and len(missed) <= limit
    if is_possible and still_there.issuperset(missed):
        assert (recovery.is_recovered, offsets(recovery)) == (True, missed)
    else:
        assert (recovery.is_recovered, offsets(recovery)) == (False, [])


def test_a_log_with_a_hole_recovers_nobody() -> None:
    """It should not happen; if it does, it is told."""
    assert recover(Position(2, EPOCH), history_at(5, 3, 5)) == Recovery(False)


@given(counts, st.booleans(), counts, epochs)
def test_in_cache_mode_only_the_newest_counts(published: int, is_kept: bool, offset: int, epoch: str) -> None:
    """The model: given if it is kept and the client lacks it; else the client must have it already."""
    history = history_at(published, published) if is_kept and published else history_at(published)
    recovery = recover_latest(Position(offset, epoch), history)
    has_it = offset == published and epoch == EPOCH
    if is_kept and published:
        assert (recovery.is_recovered, offsets(recovery)) == (True, [] if has_it else [published])
    else:
        is_same = offset == published and epoch in ("", EPOCH)
        assert (recovery.is_recovered, offsets(recovery)) == (is_same, [])


def test_a_cache_that_holds_something_older_than_the_top_does_not_recover() -> None:
    """The newest was removed or never stored."""
    assert recover_latest(Position(2, EPOCH), history_at(9, 8)) == Recovery(False)


# ------------------------------------------------------------------------------------------------------ merge


@given(st.integers(0, 9), st.integers(0, 9), st.lists(st.integers(1, 15)))
def test_merging_neither_duplicates_nor_leaves_a_hole(since: int, missed: int, heard: list[int]) -> None:
    """Whatever was heard: what was read, and then what continues it."""
    top = since + missed
    history = history_at(top, *range(since + 1, top + 1))
    live = [publication for offset in heard for publication in history_at(offset, offset).publications]
    merged = merge(history, live)
    assert offsets(merged) == list(range(since + 1, merged.top.offset + 1))
    assert (merged.top.offset >= top, merged.top.epoch) == (True, EPOCH)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_merging_loses_nothing_that_was_heard_in_order(top: int, before: int, after: int) -> None:
    """What was heard may begin before the top that was read, and go beyond it."""
    heard = range(max(1, top - before), top + after + 1)
    live = [publication for offset in heard for publication in history_at(offset, offset).publications]
    merged = merge(history_at(top), live)
    assert offsets(merged) == list(range(top + 1, top + after + 1))


def test_merging_leaves_what_was_read_as_it_was() -> None:
    """An engine may give the same list to everybody who reads."""
    history = history_at(2, 1, 2)
    merge(history, history_at(3, 3).publications)
    assert offsets(history) == [1, 2]


# ----------------------------------------------------------------------------------------------------- stream


@pytest.mark.parametrize(
    ("offset", "epoch", "verdict", "position"),
    [
        (5, EPOCH, Continuity.NEXT, 5),
        (4, EPOCH, Continuity.OLD, 4),
        (1, EPOCH, Continuity.OLD, 4),
        (6, EPOCH, Continuity.GAP, 4),
        (5, "replaced", Continuity.OTHER_EPOCH, 4),
    ],
)
def test_only_the_next_publication_moves_a_stream(
    offset: int, epoch: str, verdict: Continuity, position: int
) -> None:
    """Everything else is a matter for the node."""
    stream = PositionTracker()
    stream.set(Position(4, EPOCH))
    assert stream.advance(offset, epoch) is verdict
    assert stream.position == Position(position, EPOCH)


def test_a_stream_is_unsettled_until_a_position_is_known() -> None:
    """Also position 0, of a log without a publication, is a position."""
    stream = PositionTracker()
    assert (stream.is_known, stream.offset) == (False, -1)
    stream.set(Position(0, EPOCH))
    assert (stream.is_known, stream.offset) == (True, 0)


@given(st.lists(st.integers(1, 12)))
def test_what_a_stream_takes_is_gapless(heard: list[int]) -> None:
    """In whatever order publications come."""
    stream = PositionTracker()
    stream.set(Position(0, EPOCH))
    taken = [offset for offset in heard if stream.advance(offset, EPOCH) is Continuity.NEXT]
    assert taken == list(range(1, len(taken) + 1))
    assert stream.offset == len(taken)
