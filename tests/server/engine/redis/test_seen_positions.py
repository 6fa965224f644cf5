"""Tops: what counts as seen."""

from tocsin_server.engine.redis.seen_positions import UNSEEN, SeenPosition, SeenPositions


def test_a_top_never_falls_within_one_epoch() -> None:
    """Answers and announcements come in any order."""
    tops = SeenPositions()
    tops.track("a")
    for offset in (3, 5, 4):
        tops.record("a", offset, "e")
    assert tops.latest("a") == SeenPosition(5, "e")
    tops.record("a", 1, "f")
    assert tops.latest("a") == SeenPosition(1, "f")


def test_only_what_is_watched_is_remembered() -> None:
    """And only what has a place in a log."""
    tops = SeenPositions()
    tops.record("a", 3, "e")
    assert tops.latest("a") == UNSEEN
    tops.track("a")
    tops.record("a", 0, "")
    assert tops.latest("a") == UNSEEN
    tops.record("a", 3, "e")
    tops.track("a")
    assert tops.latest("a") == SeenPosition(3, "e")
    tops.untrack("a")
    tops.untrack("a")
    assert tops.latest("a") == UNSEEN


def test_another_publication_in_the_same_place_is_news() -> None:
    """By its stamp. Answers have none, and what has none is believed."""
    tops = SeenPositions()
    tops.track("a")
    assert tops.record("a", 3, "e")
    assert tops.record("a", 3, "e", 1000)
    assert tops.record("a", 3, "e")
    assert tops.record("a", 2, "e", 900)
    assert tops.latest("a") == SeenPosition(3, "e", 1000)
    assert not tops.record("a", 3, "e", 1001)
    assert tops.latest("a") == SeenPosition(3, "e", 1000)
    assert tops.record("a", 4, "e", 1002)
    assert tops.record("a", 4, "f", 1003)
