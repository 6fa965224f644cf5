"""Merging and position tracking, each against a simpler model."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.core.playbook import EPOCH, history_at
from tests.server.core.recording_connection import StoredHistory
from tocsin_server.core.events import ServerSubscribe
from tocsin_server.core.positions import (
    Continuity,
    History,
    PositionTracker,
    merge,
)
from tocsin_server.protocol.messages import Position

counts = st.integers(min_value=0, max_value=12)
epochs = st.sampled_from(["", EPOCH, "replaced"])


def stored_history(published: int, size: int, is_expired: bool) -> StoredHistory:
    """Return a history after so many publications."""
    stored = StoredHistory(size, EPOCH)
    for _ in range(published):
        stored.append()
    if is_expired:
        stored.kept = []
    return stored


def offsets(recovery: History) -> list[int]:
    return [publication.offset for publication in recovery.publications]


def test_nodes_send_each_other_a_position_as_an_array() -> None:
    """Nodes of all versions read it."""
    event = ServerSubscribe("news", since=Position(3, EPOCH))
    encoded = msgspec.json.encode(event)
    assert msgspec.json.decode(encoded)["since"] == [3, EPOCH]
    assert msgspec.json.decode(encoded, type=ServerSubscribe) == event


# ---------------------------------------------------------------------------------------------------- recover


@given(st.integers(0, 9), st.integers(0, 9), st.lists(st.integers(1, 15)))
def test_a_merged_history_has_neither_duplicates_nor_gaps(
    since: int, missed: int, received: list[int]
) -> None:
    """It is the history read, and the received publications that continue it."""
    top = since + missed
    history = history_at(top, *range(since + 1, top + 1))
    live = [publication for offset in received for publication in history_at(offset, offset).publications]
    merged = merge(history, live)
    assert offsets(merged) == list(range(since + 1, merged.top.offset + 1))
    assert (merged.top.offset >= top, merged.top.epoch) == (True, EPOCH)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_a_merge_keeps_every_publication_received_in_order(top: int, before: int, after: int) -> None:
    """The received publications may begin before the top of the history, and end after it."""
    received = range(max(1, top - before), top + after + 1)
    live = [publication for offset in received for publication in history_at(offset, offset).publications]
    merged = merge(history_at(top), live)
    assert offsets(merged) == list(range(top + 1, top + after + 1))


def test_a_merge_does_not_change_the_history_read() -> None:
    """An engine may return the same list to several callers."""
    history = history_at(2, 1, 2)
    merge(history, history_at(3, 3).publications)
    assert offsets(history) == [1, 2]


# ---------------------------------------------------------------------------------------------------- tracker


@pytest.mark.parametrize(
    ("offset", "epoch", "continuity", "position"),
    [
        (5, EPOCH, Continuity.NEXT, 5),
        (4, EPOCH, Continuity.OLD, 4),
        (1, EPOCH, Continuity.OLD, 4),
        (6, EPOCH, Continuity.AHEAD, 4),
        (5, "replaced", Continuity.OTHER_EPOCH, 4),
    ],
)
def test_only_the_next_publication_advances_a_tracker(
    offset: int, epoch: str, continuity: Continuity, position: int
) -> None:
    """All others leave it unchanged, and the node must backfill."""
    tracker = PositionTracker()
    tracker.set(Position(4, EPOCH))
    assert tracker.advance(offset, epoch) is continuity
    assert tracker.position == Position(position, EPOCH)


def test_a_position_is_unknown_until_it_is_set() -> None:
    """Position 0, of a history without a publication, is a position too."""
    tracker = PositionTracker()
    assert (tracker.is_known, tracker.offset) == (False, -1)
    tracker.set(Position(0, EPOCH))
    assert (tracker.is_known, tracker.offset) == (True, 0)


@given(st.lists(st.integers(1, 12)))
def test_publications_that_a_tracker_accepts_have_no_gap(received: list[int]) -> None:
    """In every order in which publications come."""
    tracker = PositionTracker()
    tracker.set(Position(0, EPOCH))
    taken = [offset for offset in received if tracker.advance(offset, EPOCH) is Continuity.NEXT]
    assert taken == list(range(1, len(taken) + 1))
    assert tracker.offset == len(taken)
