"""What a client under test told its application, in order, and a way to wait for more of it."""

import asyncio
from collections import Counter
from typing import Any

from tests.support.timing import SOON

Event = dict[str, Any]


class RecordedEvents:
    """Events with an `event` kind. Each kind is read front to back, independently of the others."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._taken: Counter[str] = Counter()
        self._changed = asyncio.Condition()

    async def write(self, event: str, **details: Any) -> None:
        async with self._changed:
            self.events.append({"event": event, **details})
            self._changed.notify_all()

    async def next(self, event: str) -> Event:
        """The next event of this kind; waits for it."""
        return (await self.take(event, 1))[0]

    async def take(self, event: str, count: int) -> list[Event]:
        """The next `count` events of this kind."""
        start = self._taken[event]
        end = start + count
        try:
            async with asyncio.timeout(SOON), self._changed:
                await self._changed.wait_for(lambda: len(self.of(event)) >= end)
        except TimeoutError:
            raise AssertionError(f"no {event} ({count} wanted), but: {self.events}") from None
        self._taken[event] = end
        return self.of(event)[start:end]

    def of(self, event: str) -> list[Event]:
        """All events of this kind so far."""
        return [entry for entry in self.events if entry["event"] == event]
