"""How long a client waits before it tries again."""

from __future__ import annotations

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 20.0  # both as the protocol's other clients (protocol §15)


def delay(attempt: int, random: float) -> float:
    """Return the seconds to wait before attempt 0, 1, 2 …, given a random number in [0, 1).

    The wait is ``FIRST_SECONDS`` plus a random part of a ceiling that doubles with each attempt, and at most
    ``LONGEST_SECONDS``. The random part spreads the reconnects of clients that lost their connections
    together. The fixed part keeps a client from trying again at once, which full jitter would allow.
    """
    ceiling = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt, 16))
    return min(LONGEST_SECONDS, FIRST_SECONDS + random * ceiling)
