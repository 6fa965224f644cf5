"""Backoff: how long to wait before the next attempt, so that many nodes do not knock together."""

from __future__ import annotations

from random import Random

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 1.0
"""Redis is back for all of a thousand nodes within about a second, at a thousand attempts a second."""


class Backoff:
    """Full jitter: anything between nothing and a bound that doubles with each failure."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._failures = 0

    def reset(self) -> None:
        """The last attempt succeeded."""
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after another failure."""
        bound = min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** min(self._failures, 16))
        self._failures += 1
        return self._random.uniform(0, bound)
