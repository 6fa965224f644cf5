"""The failure detector: which leases have not been renewed for too long, by this node's own clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

DEAD = b"dead"
"""The value of a lease that has expired, in place of its count. Its presence entries are being reaped."""

LEASE_SECONDS = 2.8
"""A lease whose count has not changed for so long has expired.

Leases are read every second, so the fourth read with the same count decides. A killed node is detected within
4 seconds. A node that was stopped for 1.8 seconds never is.
"""

MAX_GAP_SECONDS = 2.5
"""The longest gap between two reads that counts. In a longer one, Redis may have been away for all nodes."""


def node_of(lease: bytes) -> str:
    """The uid of the node to which a lease belongs."""
    return lease.decode().rpartition(".")[0]


def digest_of(lease: bytes) -> str:
    """The digest of which channels keep history at the lease's node. Empty if the node does not say."""
    return lease.decode().rpartition(".")[2].partition("-")[2]


class FailureDetector:
    """Compares the counts of successive reads.

    Only this node's monotonic clock is used, so no clock can mislead it.

    The mutable state is the counts of the last read and since when each has been unchanged; only `expired`
    changes it.
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[bytes, float]] = {}
        self._read_at = 0.0

    def expired(self, counts: Mapping[bytes, bytes], now: float) -> Iterator[tuple[bytes, bytes]]:
        """Take the counts of all leases as read at `now`. Yields each expired lease with its count."""
        has_gap = now - self._read_at > MAX_GAP_SECONDS
        self._read_at = now
        seen = {} if has_gap else self._seen
        self._seen = {}
        for lease, count in counts.items():
            before, since = seen.get(lease, (None, now))
            self._seen[lease] = (count, since if count == before else now)
            if count == DEAD or now - self._seen[lease][1] >= LEASE_SECONDS:
                yield lease, count
