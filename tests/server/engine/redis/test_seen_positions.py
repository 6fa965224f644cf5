"""Tops: what counts as seen."""

from tocsin_server.engine.redis.seen_positions import UNSEEN, Top, Tops


def test_a_top_never_falls_within_one_epoch() -> None:
    """Answers and announcements come in any order."""
    tops = Tops()
    tops.watch("a")
    for offset in (3, 5, 4):
        tops.see("a", offset, "e")
    assert tops.known("a") == Top(5, "e")
    tops.see("a", 1, "f")
    assert tops.known("a") == Top(1, "f")


def test_only_what_is_watched_is_remembered() -> None:
    """And only what has a place in a log."""
    tops = Tops()
    tops.see("a", 3, "e")
    assert tops.known("a") == UNSEEN
    tops.watch("a")
    tops.see("a", 0, "")
    assert tops.known("a") == UNSEEN
    tops.see("a", 3, "e")
    tops.watch("a")
    assert tops.known("a") == Top(3, "e")
    tops.drop("a")
    tops.drop("a")
    assert tops.known("a") == UNSEEN


def test_another_publication_in_the_same_place_is_news() -> None:
    """By its stamp. Answers have none, and what has none is believed."""
    tops = Tops()
    tops.watch("a")
    assert tops.see("a", 3, "e")
    assert tops.see("a", 3, "e", 1000)
    assert tops.see("a", 3, "e")
    assert tops.see("a", 2, "e", 900)
    assert tops.known("a") == Top(3, "e", 1000)
    assert not tops.see("a", 3, "e", 1001)
    assert tops.known("a") == Top(3, "e", 1000)
    assert tops.see("a", 4, "e", 1002)
    assert tops.see("a", 4, "f", 1003)
