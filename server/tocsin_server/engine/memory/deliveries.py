"""The memory engine's delivery store. What it keeps ends with the process.

The mutable state is the dead letters and the failing deliveries of each subscriber.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from tocsin_server.core.delivery import FailingDelivery
from tocsin_server.engine.deliveries import DeadLetter, DeadLetterLimits, StoredDeadLetter


class MemoryDeliveryStore:
    """Implements DeliveryStore for the only node. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._letters: dict[str, dict[int, tuple[DeadLetter, float]]] = {}
        self._failing: dict[str, dict[int, FailingDelivery]] = {}
        self._last_id = 0

    async def add_dead_letters(
        self, subscriber: str, letters: Sequence[DeadLetter], limits: DeadLetterLimits
    ) -> int:
        """Keep dead letters, as DeliveryStore describes."""
        kept = self._kept(subscriber)
        expire_at = self._clock() + limits.ttl
        for letter in letters:
            self._last_id += 1
            kept[self._last_id] = letter, expire_at
        self._letters[subscriber] = kept
        dropped = max(0, len(kept) - limits.number)
        for number in list(islice(kept, dropped)):
            del kept[number]
        return dropped

    async def read_dead_letters(
        self, subscriber: str, limit: int, after: str = ""
    ) -> Sequence[StoredDeadLetter]:
        """Return dead letters, oldest first."""
        first = _number(after) + 1 if after else 0
        kept = self._kept(subscriber)
        return [StoredDeadLetter(str(n), kept[n][0]) for n in islice((n for n in kept if n >= first), limit)]

    async def remove_dead_letters(self, subscriber: str, ids: Sequence[str]) -> int:
        """Remove dead letters."""
        kept = self._kept(subscriber)
        return sum(kept.pop(number, None) is not None for number in map(_number, ids))

    async def count_dead_letters(self, subscriber: str) -> int:
        """Count the dead letters of a subscriber."""
        return len(self._kept(subscriber))

    async def set_failing(self, subscriber: str, part: int, failing: FailingDelivery | None) -> None:
        """Keep what is known of a failing delivery, or forget it."""
        found = self._failing.setdefault(subscriber, {})
        if failing is None:
            found.pop(part, None)
        else:
            found[part] = failing

    async def failing(self, subscriber: str) -> Mapping[int, FailingDelivery]:
        """Return the failing deliveries of a subscriber."""
        return dict(self._failing.get(subscriber, {}))

    def _kept(self, subscriber: str) -> dict[int, tuple[DeadLetter, float]]:
        """The dead letters of a subscriber that have not expired."""
        kept, now = self._letters.get(subscriber, {}), self._clock()
        for number in [number for number, (_, expire_at) in kept.items() if expire_at <= now]:
            del kept[number]
        return kept


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError(f"{text[:40]!r} is not the id of a dead letter")
    return int(text)
