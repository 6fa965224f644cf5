"""Requests for sessions that do not exist: how many an address may make, so that none is found by guessing.

A request is counted before another node is asked, and given back if the session exists: a client with a
session costs its address nothing. The limit is that of new connections, with an allowance of its own.

The module is pure. The mutable state is what each address has used; only `SessionGuesses` changes it.
"""

from __future__ import annotations

from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.core.admission import BURST_SECONDS
from tocsin_server.core.rate_limit import RateLimit
from tocsin_server.core.rate_limits import RateLimits

LIMIT = "limits.address_connect_rate"


class SessionGuesses:
    """Counts the requests of addresses. An empty key does not count (see Admission)."""

    def __init__(self, options: LimitOptions) -> None:
        rate = options.address_connect_rate
        self._limit = RateLimit(rate, rate * BURST_SECONDS)
        self._used = RateLimits()

    def take(self, key: str, now: float) -> bool:
        """Use one request of an address; False if it has none left. `now` is in monotonic seconds."""
        return not key or self._used.take(key, self._limit, now)

    def give_back(self, key: str) -> None:
        """Return what `take` used: the session exists."""
        if key:
            self._used.give_back(key, self._limit)
