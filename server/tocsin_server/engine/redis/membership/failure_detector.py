"""The watch over leases: which of them nobody renewed for too long, by this node's own clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

DEAD = b"dead"
"""Instead of a beat: the lease has lapsed, and its entries are being reaped."""

LEASE_SECONDS = 2.8
"""A lease whose beat stood still for so long has lapsed.

Looks come every second, so the fourth that sees the same beat decides: a killed node is noticed within
4 seconds, and one that was stopped for 1.8 never is.
"""

BLIND_SECONDS = 2.5
"""Between two looks. What stood still in such a gap proves nothing: Redis may have been away for all."""


def node_of(lease: bytes) -> str:
    """The uid of the node that a lease is, or was, of."""
    return lease.decode().rpartition(".")[0]


class Watch:
    """Compares what it is shown.

    Clocks of other nodes and of Redis play no part, so none that jumps does harm.
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[bytes, float]] = {}
        self._looked_at = 0.0

    def look(self, beats: Mapping[bytes, bytes], now: float) -> Iterator[tuple[bytes, bytes]]:
        """The leases that have lapsed, each with the beat at which it stood still."""
        is_blind = now - self._looked_at > BLIND_SECONDS
        self._looked_at = now
        seen = {} if is_blind else self._seen
        self._seen = {}
        for lease, beat in beats.items():
            before, since = seen.get(lease, (None, now))
            self._seen[lease] = (beat, since if beat == before else now)
            if beat == DEAD or now - self._seen[lease][1] >= LEASE_SECONDS:
                yield lease, beat
