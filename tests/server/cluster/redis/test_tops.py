"""Tops: what counts as seen."""

from tocsin_server.cluster.broker import NO_POSITION
from tocsin_server.cluster.redis.tops import Tops


def test_a_top_never_falls_within_one_epoch() -> None:
    """Answers and announcements come in any order."""
    tops = Tops()
    tops.watch("a")
    for offset in (3, 5, 4):
        tops.see("a", offset, "e")
    assert tops.known("a") == (5, "e")
    tops.see("a", 1, "f")
    assert tops.known("a") == (1, "f")


def test_only_what_is_watched_is_remembered() -> None:
    """And only what has a place in a log."""
    tops = Tops()
    tops.see("a", 3, "e")
    assert tops.known("a") == NO_POSITION
    tops.watch("a")
    tops.see("a", 0, "")
    assert tops.known("a") == NO_POSITION
    tops.see("a", 3, "e")
    tops.watch("a")
    assert tops.known("a") == (3, "e")
    tops.drop("a")
    tops.drop("a")
    assert tops.known("a") == NO_POSITION
