"""What a node tells its operator about the deliveries to one subscriber: metrics, log lines, a warning.

The mutable state is the failing deliveries of this node's parts; only `attempted`, `failing`, `recovered` and
`released` change it. A line is written when the first part begins to fail and when the last one works again,
not for each attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from tocsin_server.core.delivery import FailingDelivery, GiveUp, Outcome
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.sampled_log import SampledLog

WARNING_SECONDS = 300.0
"""From when on a failing subscriber is a warning in /health/ready: longer than a restart of the receiver."""

log = structlog.get_logger()


class DeliveryLog:
    """The metrics and log lines about one subscriber. `clock` returns unix seconds."""

    def __init__(
        self,
        subscriber: str,
        metrics: Metrics,
        sampled_log: SampledLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._subscriber = subscriber
        self._metrics = metrics
        self._sampled_log = sampled_log
        self._clock = clock
        self._failing: dict[int, FailingDelivery] = {}
        metrics.waiting_event_age.labels(subscriber).set_function(self.oldest_seconds)

    @property
    def warning(self) -> str:
        """That the subscriber has not taken events for long, as a sentence; empty if it has."""
        if not self._failing:
            return ""
        worst = min(self._failing.values(), key=lambda failing: failing.failing_since)
        seconds = self._clock() - worst.failing_since
        if seconds < WARNING_SECONDS:
            return ""
        return f"Events for {self._subscriber} cannot be delivered for {seconds:.0f} s ({worst.error})."

    def oldest_seconds(self) -> float:
        """The age of the oldest event whose delivery fails at this node; 0 if none does."""
        times = [failing.oldest_event_at for failing in self._failing.values()]
        return max(0.0, self._clock() - min(times)) if times else 0.0

    def attempted(self, part: int, outcome: Outcome, events: int) -> None:
        """Count an attempt with so many events, if they were delivered."""
        self._metrics.delivery_attempts.add(self._subscriber, outcome.result.value)
        if events:
            self._metrics.delivered_events.counts[self._subscriber,] += events
            self.recovered(part)

    def failing(self, part: int, failing: FailingDelivery) -> None:
        """A part's delivery fails, here or at the node that had the part before."""
        if not self._failing:
            log.warning("delivery_failing", subscriber=self._subscriber, error=failing.error)
        self._failing[part] = failing

    def recovered(self, part: int) -> None:
        """The delivery of a part does not fail any longer."""
        if self._failing.pop(part, None) is not None and not self._failing:
            log.info("delivery_recovered", subscriber=self._subscriber)

    def released(self, part: int) -> None:
        """This node does not deliver a part any longer."""
        self._failing.pop(part, None)

    def gave_up(self, decision: GiveUp, delivery: str, dropped: int) -> None:
        """Events became dead letters, and so many older ones were dropped for them."""
        self._metrics.dead_letters.counts[self._subscriber,] += decision.number
        self._sampled_log.write(
            "events_not_delivered",
            level="warning",
            subscriber=self._subscriber,
            events=decision.number,
            delivery=delivery,
            attempts=decision.attempts,
            error=decision.reason,
        )
        if dropped:
            self._metrics.dropped_dead_letters.counts[self._subscriber,] += dropped
            self._sampled_log.write(
                "dead_letters_dropped", level="warning", subscriber=self._subscriber, dropped=dropped
            )
