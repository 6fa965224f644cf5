"""Rate limits of many keys, such as users or channels: one number for each key that has used something.

The mutable state is those numbers by key. Only the methods of `RateLimits` change it. A key is forgotten once
its whole allowance is back, so that there are only as many as were used lately.
"""

from __future__ import annotations

from collections.abc import Hashable

from tocsin_server.core.rate_limit import NEVER_USED, RateLimit

SWEEP_COUNT = 1024
"""The number of keys at which those that may be forgotten are looked for."""

MOST_KEYS = 200_000
"""Past this number the keys that were added first are forgotten: about 30 MB."""


class RateLimits:
    """What each key has used of a limit. All limits are in seconds of one monotonic clock."""

    __slots__ = ("_full_at", "_most_keys", "_sweep_count")

    def __init__(self, most_keys: int = MOST_KEYS) -> None:
        self._full_at: dict[Hashable, float] = {}
        self._most_keys = most_keys
        self._sweep_count = SWEEP_COUNT

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._full_at)

    def take(self, key: Hashable, limit: RateLimit, now: float, amount: float = 1) -> bool:
        """Use `amount` of a key's allowance; False if too little is left, and then nothing is used."""
        if not limit.rate:
            return True
        taken = limit.take(self._full_at.get(key, NEVER_USED), now, amount)
        if taken is None:
            return False
        self._full_at[key] = taken
        if len(self._full_at) >= self._sweep_count:
            self._sweep(now)
        return True

    def give_back(self, key: Hashable, limit: RateLimit, amount: float = 1) -> None:
        """Return what `take` has used, unless it is back already."""
        if limit.rate and key in self._full_at:
            self._full_at[key] -= amount / limit.rate

    def _sweep(self, now: float) -> None:
        """Forget the keys whose allowance is back. The next sweep comes once there are twice as many.

        So a sweep costs each call that added a key a constant time.
        """
        remaining = {key: full_at for key, full_at in self._full_at.items() if full_at > now}
        excess = len(remaining) - self._most_keys
        for key in list(remaining)[: max(0, excess)]:
            del remaining[key]
        self._full_at = remaining
        self._sweep_count = max(SWEEP_COUNT, min(2 * len(remaining), self._most_keys + SWEEP_COUNT))
