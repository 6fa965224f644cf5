"""The counters of a worker process."""

from __future__ import annotations

import asyncio
from collections import Counter

from .histogram import Histogram

MOST_REASONS = 50  # bounds the memory if a server sends another reason each time


class WorkerCounters:
    """All counters of one worker, and its latencies.

    ``is_publishing`` is True once publications may arrive. ``all_settled`` is set once all ``connections``
    are settled.

    The mutable state is all attributes except ``run``. The worker and its subscribers change them.
    """

    def __init__(self, run: str, connections: int) -> None:
        self.run = run
        self.all_settled = asyncio.Event()
        self.is_publishing = False
        self.subscribed = 0
        self.settled = 0  # subscribed once, or ended
        self.delivered = 0
        self.foreign = 0
        self.lost_connections = 0
        self.failures: Counter[str] = Counter()
        self.reconnects = Histogram()
        self.seconds: dict[int, Histogram] = {}
        self.last_settled = 0.0
        self._connections = connections
        self._latency = Histogram()

    def count_delivery(self, latency: float, now: float) -> None:
        """Count a delivery at the time ``now``."""
        self.delivered += 1
        self._latency.add(latency)
        second = self.seconds.get(int(now))
        if second is None:
            second = self.seconds[int(now)] = Histogram()
        second.add(latency)

    def count_settled(self, now: float) -> None:
        """Count a connection that is subscribed for the first time, or has ended without that."""
        self.settled += 1
        self.last_settled = now
        if self.settled == self._connections:
            self.all_settled.set()

    def count_failure(self, reason: str) -> None:
        """Count an attempt or a connection that failed."""
        is_counted = reason in self.failures or len(self.failures) < MOST_REASONS
        self.failures[reason if is_counted else "other reasons"] += 1

    def take_latency(self) -> Histogram:
        """Return the latencies since the last call."""
        latency, self._latency = self._latency, Histogram()
        return latency
