"""The failure detector: which leases have not been renewed for too long."""

from tocsin_server.engine.redis.membership.failure_detector import (
    DEAD,
    LEASE_SECONDS,
    MAX_GAP_SECONDS,
    FailureDetector,
)

A, B = b"a", b"b"


def expirations(reads: list[tuple[float, dict[bytes, bytes]]]) -> list[tuple[float, bytes, bytes]]:
    """Pass these reads to a detector. Returns when each lease expired, and its count."""
    detector = FailureDetector()
    return [(now, *expired) for now, counts in reads for expired in detector.expired(counts, now)]


def test_a_lease_that_is_not_renewed_expires() -> None:
    """At the fourth read with the same count, when reads are a second apart."""
    reads = [(float(now), {A: b"7", B: b"%d" % now}) for now in range(100, 105)]
    assert expirations(reads) == [(103.0, A, b"7"), (104.0, A, b"7")]


def test_a_lease_that_is_renewed_does_not_expire() -> None:
    """Even if it is renewed slowly."""
    reads = [(float(now), {A: b"%d" % (now // 2)}) for now in range(100, 130)]
    assert expirations(reads) == []


def test_a_dead_lease_expires_at_once() -> None:
    """The node that was reaping it may have died."""
    assert expirations([(100.0, {A: DEAD})]) == [(100.0, A, DEAD)]


def test_a_gap_between_reads_does_not_count() -> None:
    """After Redis was away, every lease gets its full time again."""
    gap = 100.0 + MAX_GAP_SECONDS + 60
    reads = [(100.0, {A: b"7"}), (gap, {A: b"7"}), (gap + 2, {A: b"7"}), (gap + 3, {A: b"7"})]
    assert expirations(reads) == [(gap + 3, A, b"7")]


def test_a_lease_that_returns_gets_its_full_time() -> None:
    """Its count before it disappeared does not matter."""
    reads = [(100.0, {A: b"7"}), (102.0, {}), (104.0, {A: b"7"}), (104.0 + LEASE_SECONDS - 1, {A: b"7"})]
    assert expirations(reads) == []
