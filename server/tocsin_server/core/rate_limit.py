"""A rate limit: so many per second on average, and so many at once.

The generic cell rate algorithm (ITU-T I.371): what one client has used is a single number, the moment at
which all of its allowance is back. So a client costs no timer and no memory beyond that number. The module
is pure: the caller keeps the number.
"""

from __future__ import annotations

NEVER_USED = 0.0
"""The number of a client that has used nothing yet."""

ROUNDING_SECONDS = 2**-26
"""By so much a sum may become too large with each of a burst, so that the last one is not refused.

It is twice the rounding error of a monotonic clock that has run for two to four years.
"""


class RateLimit:
    """A limit of `rate` per second, and of `burst` at once after a pause. A rate of 0 is no limit."""

    __slots__ = ("_burst_seconds", "_interval", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._interval = 1 / rate if rate else 0.0
        """The seconds in which the allowance of one comes back."""
        self._burst_seconds = burst * (self._interval + ROUNDING_SECONDS)

    def take(self, full_at: float, now: float, amount: float = 1) -> float | None:
        """Use `amount` of the allowance; return the new `full_at` to keep, or None if too little is left.

        `full_at` and `now` are seconds of one monotonic clock. A refused request uses nothing.
        """
        if not self.rate:
            return full_at
        began = full_at if full_at > now else now  # noqa: FURB136 - three times as fast as `max`
        used_until = began + amount * self._interval
        return used_until if used_until - now <= self._burst_seconds else None

    def seconds_until(self, full_at: float, now: float, amount: float = 1) -> float:
        """How many seconds from now `take` would succeed, 0 if it would now. `amount` is at most `burst`."""
        if not self.rate:
            return 0.0
        return max(0.0, max(full_at, now) + (amount - self.burst) * self._interval - now)
