"""The events that a client under test emits to its application, recorded in order."""

import asyncio
from collections import Counter
from typing import Any

from tests.support.timing import SOON

Event = dict[str, Any]


class RecordedEvents:
    """Recorded events. Each kind is read in order, independently of the other kinds.

    The mutable state is the events and how many of each kind were taken; `record` and `take` change it.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._taken: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    async def record(self, event: str, **details: Any) -> None:
        async with self._changed:
            self.events.append({"event": event, **details})
            self._changed.notify_all()

    async def next(self, event: str) -> Event:
        """Wait for the next event of this kind."""
        return (await self.take(event, 1))[0]

    async def take(self, event: str, count: int) -> list[Event]:
        """Wait for the next `count` events of this kind."""
        start = self._taken[event]
        end = start + count
        try:
            async with asyncio.timeout(SOON), self._changed:
                await self._changed.wait_for(lambda: len(self.of(event)) >= end)
        except TimeoutError:
            raise AssertionError(f"no {event} ({count} expected), but: {self.events}") from None
        self._taken[event] = end
        return self.of(event)[start:end]

    def of(self, event: str) -> list[Event]:
        """All events of this kind until now."""
        return [entry for entry in self.events if entry["event"] == event]
