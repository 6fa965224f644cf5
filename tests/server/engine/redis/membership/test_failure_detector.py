"""The watch: who stood still for too long, as this node saw it."""

from tocsin_server.engine.redis.membership.failure_detector import (
    DEAD,
    LEASE_SECONDS,
    MAX_GAP_SECONDS,
    FailureDetector,
)

A, B = b"a", b"b"


def looked(looks: list[tuple[float, dict[bytes, bytes]]]) -> list[tuple[float, bytes, bytes]]:
    """What a watch says to looks at these moments: when, and the lease with its beat."""
    watch = FailureDetector()
    return [(now, *lapsed) for now, beats in looks for lapsed in watch.expired(beats, now)]


def test_a_beat_that_stands_still_lapses() -> None:
    """At the fourth look that sees it, a second apart."""
    looks = [(float(now), {A: b"7", B: b"%d" % now}) for now in range(100, 105)]
    assert looked(looks) == [(103.0, A, b"7"), (104.0, A, b"7")]


def test_a_beat_that_goes_on_does_not() -> None:
    """Not even if it is slow."""
    looks = [(float(now), {A: b"%d" % (now // 2)}) for now in range(100, 130)]
    assert looked(looks) == []


def test_what_is_dead_lapses_at_once() -> None:
    """Somebody may have died over reaping it."""
    assert looked([(100.0, {A: DEAD})]) == [(100.0, A, DEAD)]


def test_what_stood_still_while_nobody_looked_proves_nothing() -> None:
    """After Redis was away, every lease has its time again."""
    gap = 100.0 + MAX_GAP_SECONDS + 60
    looks = [(100.0, {A: b"7"}), (gap, {A: b"7"}), (gap + 2, {A: b"7"}), (gap + 3, {A: b"7"})]
    assert looked(looks) == [(gap + 3, A, b"7")]


def test_a_lease_that_comes_back_begins_anew() -> None:
    """What was seen of it before it was gone does not count."""
    looks = [(100.0, {A: b"7"}), (102.0, {}), (104.0, {A: b"7"}), (104.0 + LEASE_SECONDS - 1, {A: b"7"})]
    assert looked(looks) == []
