"""What a worker counts while its connections hear."""

from __future__ import annotations

from collections import Counter

from .histogram import Histogram

MOST_REASONS = 50  # a server that answers something else each time must not fill the memory


class Meter:
    """Counts of one worker; ``has_begun`` once publications may come."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.has_begun = False
        self.subscribed = 0
        self.settled = 0  # subscribed once, or given up
        self.delivered = 0
        self.foreign = 0
        self.lost_connections = 0
        self.failures: Counter[str] = Counter()
        self.returns = Histogram()
        self.seconds: dict[int, Histogram] = {}
        self.last_settled = 0.0
        self._latency = Histogram()

    def deliver(self, latency: float, now: float) -> None:
        """Count a delivery at the time ``now``."""
        self.delivered += 1
        self._latency.add(latency)
        second = self.seconds.get(int(now))
        if second is None:
            second = self.seconds[int(now)] = Histogram()
        second.add(latency)

    def settle(self, now: float) -> None:
        """A connection is subscribed for the first time, or never will be."""
        self.settled += 1
        self.last_settled = now

    def fail(self, reason: str) -> None:
        """Count an attempt or a connection that failed."""
        known = reason in self.failures or len(self.failures) < MOST_REASONS
        self.failures[reason if known else "other reasons"] += 1

    def take_latency(self) -> Histogram:
        """Give what was counted since the last time."""
        latency, self._latency = self._latency, Histogram()
        return latency
