"""Seen positions: which positions a node remembers."""

from tocsin_server.engine.redis.seen_positions import UNSEEN, SeenPosition, SeenPositions


def test_a_seen_offset_never_decreases_within_one_epoch() -> None:
    """Replies and publications arrive in any order."""
    seen = SeenPositions()
    seen.track("a")
    for offset in (3, 5, 4):
        seen.record("a", offset, "e")
    assert seen.latest("a") == SeenPosition(5, "e")
    seen.record("a", 1, "f")
    assert seen.latest("a") == SeenPosition(1, "f")


def test_only_tracked_channels_are_remembered() -> None:
    """And only positions in a history."""
    seen = SeenPositions()
    seen.record("a", 3, "e")
    assert seen.latest("a") == UNSEEN
    seen.track("a")
    seen.record("a", 0, "")
    assert seen.latest("a") == UNSEEN
    seen.record("a", 3, "e")
    seen.track("a")
    assert seen.latest("a") == SeenPosition(3, "e")
    seen.untrack("a")
    seen.untrack("a")
    assert seen.latest("a") == UNSEEN


def test_another_publication_at_a_seen_offset_is_reported() -> None:
    """By its stamp. Replies have no stamp, and agree with any."""
    seen = SeenPositions()
    seen.track("a")
    assert seen.record("a", 3, "e")
    assert seen.record("a", 3, "e", 1000)
    assert seen.record("a", 3, "e")
    assert seen.record("a", 2, "e", 900)
    assert seen.latest("a") == SeenPosition(3, "e", 1000)
    assert not seen.record("a", 3, "e", 1001)
    assert seen.latest("a") == SeenPosition(3, "e", 1000)
    assert seen.record("a", 4, "e", 1002)
    assert seen.record("a", 4, "f", 1003)
