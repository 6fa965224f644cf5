"""How long a client waits before it tries again: for any number that a server names, never at once.

A connection that does not last does not reset the count of attempts.
"""

from __future__ import annotations

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 20.0  # both as the protocol's other clients (protocol §15)
STEADY_SECONDS = 10.0  # after a connection or subscription of this length, earlier failures no longer count
OVERLOADED_ATTEMPT = 3  # after "too many requests", the first wait is that of this attempt: up to 4.5 s
FIRST_REFRESH_SECONDS = 1.0
LONGEST_REFRESH_SECONDS = 30 * 86_400.0


def delay(attempt: int, random: float) -> float:
    """Return the seconds to wait before attempt 0, 1, 2 …, given a random number in [0, 1).

    The wait is ``FIRST_SECONDS`` plus a random part of a ceiling that doubles with each attempt, and at most
    ``LONGEST_SECONDS``. The random part spreads the reconnects of clients that lost their connections
    together. The fixed part keeps a client from trying again at once, which full jitter would allow.
    """
    ceiling = min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(attempt, 16))
    return min(LONGEST_SECONDS, FIRST_SECONDS + random * ceiling)


def refresh_delay(ttl: int, attempt: int) -> float:
    """Return the seconds to wait before a token is renewed, of which the server says that it lasts ``ttl``.

    ``attempt`` counts the waits in a row that were longer than ``ttl``. Each doubles the next shortest wait,
    from ``FIRST_REFRESH_SECONDS`` to ``LONGEST_SECONDS``. Servers wait 25 s for a new token.
    """
    shortest = min(LONGEST_SECONDS, FIRST_REFRESH_SECONDS * 2.0 ** min(attempt, 16))
    return float(max(shortest, min(ttl, LONGEST_REFRESH_SECONDS)))
