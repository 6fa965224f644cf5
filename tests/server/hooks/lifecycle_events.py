"""Lifecycle events, and an event log in memory that has them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tocsin_server.config.event_options import EventOptions, EventType
from tocsin_server.core.lifecycle import EventBatch, LifecycleEvent
from tocsin_server.engine.memory.event_log import MemoryEventLog


def event(
    number: int, client: str = "c1", kind: EventType = "connected", channel: str = ""
) -> LifecycleEvent:
    return LifecycleEvent(
        kind, f"e{number}", time.time(), "n1", client, "ada", sequence=number, channel=channel
    )


def events(count: int, client: str = "c1") -> list[LifecycleEvent]:
    return [event(number, client) for number in range(count)]


class WrittenLog(MemoryEventLog):
    """An event log to which a test writes."""

    def __init__(self, parts: int = 1) -> None:
        super().__init__(EventOptions(types=("connected",), parts=parts))
        self._number = 0

    async def add(self, events: Sequence[LifecycleEvent]) -> None:
        self._number += 1
        await self.write(EventBatch(self._number, events, {}))
