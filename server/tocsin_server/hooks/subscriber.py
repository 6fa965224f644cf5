"""A subscriber of lifecycle events: a webhook, or a handler of the embedding application."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from tocsin_server.core.delivery import Outcome
from tocsin_server.core.lifecycle import LifecycleEvent
from tocsin_server.engine.deliveries import DeadLetterLimits


class DeliveryOptions(NamedTuple):
    """How events are delivered to a subscriber. Times are in seconds."""

    batch_size: int
    batch_delay: float
    """How long an event waits for others, unless there are `batch_size`."""
    retry_for: float
    """How long after it happened an event is delivered again."""
    dead_letters: DeadLetterLimits


class Subscriber(Protocol):
    """One receiver of lifecycle events. Deliveries of several parts may be in flight at once."""

    name: str
    """The same on all nodes. The event log keeps its positions under this name."""
    options: DeliveryOptions

    def open(self) -> AbstractAsyncContextManager[None]:
        """What it needs while the node runs, such as connections."""

    def wants(self, event: LifecycleEvent) -> bool:
        """Whether it receives this event."""

    async def deliver(self, delivery: str, events: Sequence[LifecycleEvent]) -> Outcome:
        """Attempt to deliver events. Bounded in time; does not raise.

        `delivery` is the same for each attempt with the same events.
        """
