"""The recovery decision, against a simpler model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.server.core.playbook import EPOCH, history_at
from tests.server.core.recording_connection import StoredHistory
from tocsin_server.core.positions import History
from tocsin_server.core.recovery import Recovery, recover, recover_latest
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


def offsets(recovery: Recovery | History) -> list[int]:
    return [publication.offset for publication in recovery.publications]


# ---------------------------------------------------------------------------------------------------- recover


@given(counts, st.integers(1, 12), st.booleans(), counts, epochs, st.integers(1, 6))
def test_a_recovery_returns_every_missed_publication_or_none(
    published: int, size: int, is_expired: bool, offset: int, epoch: str, limit: int
) -> None:
    """The model: all publications after the client's offset, if each is still kept and the limit allows."""
    stored = stored_history(published, size, is_expired)
    history = stored.read(offset)
    recovery = recover(Position(offset, epoch), History(history.top, history.publications[:limit]))
    missed = list(range(offset + 1, published + 1))
    still_kept = {publication.offset for publication in stored.kept}
    is_possible = epoch in ("", EPOCH) and offset <= published and len(missed) <= limit
    if is_possible and still_kept.issuperset(missed):
        assert (recovery.is_recovered, offsets(recovery)) == (True, missed)
    else:
        assert (recovery.is_recovered, offsets(recovery)) == (False, [])


def test_a_history_with_a_gap_recovers_no_client() -> None:
    """Engines return no such history; if one does, the client is told."""
    assert recover(Position(2, EPOCH), history_at(5, 3, 5)) == Recovery(False)


@given(counts, st.booleans(), counts, epochs)
def test_in_cache_mode_only_the_newest_publication_matters(
    published: int, is_kept: bool, offset: int, epoch: str
) -> None:
    """The model: it is returned if it is kept and new to the client; else the client must have it already."""
    history = history_at(published, published) if is_kept and published else history_at(published)
    recovery = recover_latest(Position(offset, epoch), history)
    has_it = offset == published and epoch == EPOCH
    if is_kept and published:
        assert (recovery.is_recovered, offsets(recovery)) == (True, [] if has_it else [published])
    else:
        is_same = offset == published and epoch in ("", EPOCH)
        assert (recovery.is_recovered, offsets(recovery)) == (is_same, [])


def test_a_cached_publication_older_than_the_top_does_not_recover() -> None:
    """The newest one was removed or never stored."""
    assert recover_latest(Position(2, EPOCH), history_at(9, 8)) == Recovery(False)


# ------------------------------------------------------------------------------------------------------ merge
