"""How long to wait before trying again: full jitter, so that clients cut together do not return together."""

from __future__ import annotations

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 20.0  # both as the protocol's other clients (protocol §15)


def delay(attempt: int, random: float) -> float:
    """Seconds before attempt 0, 1, 2 …, given a random number in [0, 1)."""
    ceiling = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt, 16))
    return min(LONGEST_SECONDS, FIRST_SECONDS + random * ceiling)
