"""The delivery store interface: dead letters, and what is known of deliveries that fail.

Both outlive the node that delivers, so that another one can continue, and every node can show them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec import Raw, Struct

from tocsin_server.core.delivery import FailingDelivery


class DeadLetter(Struct, frozen=True):
    """An event that could not be delivered to a subscriber, and why."""

    event: Raw
    """The event as a JSON object. The store does not parse it."""
    delivery: str
    """The id of the last delivery that contained it."""
    reason: str
    attempts: int
    """How often that delivery was attempted."""
    status: int
    """The status of the last answer; 0 without one."""
    failed_at: float
    """The unix second at which the event became a dead letter."""


class StoredDeadLetter(NamedTuple):
    """A dead letter and its id, which no other one of its subscriber has."""

    id: str
    letter: DeadLetter


class DeadLetterLimits(NamedTuple):
    """How many dead letters a subscriber may have, and how many seconds they are kept."""

    number: int
    ttl: float


class DeliveryStore(Protocol):
    """The delivery store of one node. Every method raises EngineError if the engine cannot do its work."""

    async def add_dead_letters(
        self, subscriber: str, letters: Sequence[DeadLetter], limits: DeadLetterLimits
    ) -> int:
        """Keep dead letters, in this order. Return how many older ones were dropped because of the number.

        Those that are older than the time to live are removed now; all of them, once none was added for that
        long.
        """

    async def read_dead_letters(
        self, subscriber: str, limit: int, after: str = ""
    ) -> Sequence[StoredDeadLetter]:
        """Return the oldest dead letters, or those that follow the one with the id `after`.

        Raises ValueError if `after` is not the form of an id.
        """

    async def remove_dead_letters(self, subscriber: str, ids: Sequence[str]) -> int:
        """Remove dead letters. Return how many there were. Raises ValueError for what is not an id."""

    async def count_dead_letters(self, subscriber: str) -> int:
        """Return how many dead letters a subscriber has."""

    async def set_failing(self, subscriber: str, part: int, failing: FailingDelivery | None) -> None:
        """Keep what is known of the failing delivery of a part, or forget it."""

    async def failing(self, subscriber: str) -> Mapping[int, FailingDelivery]:
        """Return the failing deliveries of a subscriber, by part."""
