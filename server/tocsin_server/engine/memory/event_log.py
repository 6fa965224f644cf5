"""The memory engine's event log. Its events end with the process.

The mutable state is the kept events of each part, the positions of subscribers, and the number of the last
batch.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from tocsin_server.config.event_options import EventOptions
from tocsin_server.core.lifecycle import EventBatch, LifecycleEvent, WriteOutcome, part_of
from tocsin_server.engine.event_log import LogFigures, StoredEvent, WriteCount


class _Entry(NamedTuple):
    number: int
    written_at: float
    event: LifecycleEvent


class _Part:
    """One part of the log: its events, and up to which entry each subscriber has acknowledged them."""

    def __init__(self) -> None:
        self.entries: deque[_Entry] = deque()
        self.last_number = 0
        self.acknowledged: dict[str, int] = {}

    def append(self, event: LifecycleEvent, now: float) -> None:
        self.last_number += 1
        self.entries.append(_Entry(self.last_number, now, event))

    def unacknowledged(self, subscriber: str) -> Iterator[_Entry]:
        position = self.acknowledged.get(subscriber, 0)
        return (entry for entry in self.entries if entry.number > position)

    def remove_oldest(self) -> bool:
        """Remove the oldest event. Returns whether a subscriber has not acknowledged it."""
        number = self.entries.popleft().number
        return any(position < number for position in self.acknowledged.values())

    def remove_acknowledged(self) -> None:
        least = min(self.acknowledged.values(), default=0)
        while self.entries and self.entries[0].number <= least:
            self.entries.popleft()


class MemoryEventLog:
    """Implements EventLog for the only node. `clock` returns monotonic seconds."""

    def __init__(self, options: EventOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._parts = [_Part() for _ in range(options.parts)]
        self._last_batch = 0
        self._trimmed = 0
        self._writes = WriteCount()

    @property
    def parts(self) -> int:
        """The number of parts."""
        return len(self._parts)

    async def open(self, node: str, live: Container[str] = ()) -> None:  # noqa: ARG002 - memory loses nothing
        """Begin to write, with batch 1."""
        self._last_batch = 0

    async def write(self, batch: EventBatch) -> WriteOutcome:
        """Write a batch, unless it was written before."""
        if batch.number > self._last_batch:
            self._last_batch = batch.number
            now = self._clock()
            wanted = [event for event in batch.events if self._options.keeps(event.type)]
            for event in wanted:
                self._parts[part_of(event.key, self.parts)].append(event, now)
            self._trim(now)
            if wanted:
                self._writes.increment()
        return WriteOutcome.WRITTEN

    async def close(self) -> None:
        """Do nothing: no other node has to know."""

    async def claim(self, subscriber: str, part: int) -> bool:
        """Let the only node read a part."""
        self._parts[part].acknowledged.setdefault(subscriber, 0)
        return True

    async def release(self, subscriber: str, part: int) -> None:
        """Do nothing: no other node waits for the claim."""

    async def surplus(self, subscriber: str) -> int:  # noqa: ARG002 - the only node has all parts
        """Return 0: there is no other node."""
        return 0

    async def leave(self, subscriber: str) -> None:
        """Do nothing: no other node claims parts."""

    async def read(self, subscriber: str, part: int, limit: int) -> Sequence[StoredEvent]:
        """Return the oldest events that the subscriber has not acknowledged."""
        self._trim(self._clock())
        found = islice(self._parts[part].unacknowledged(subscriber), limit)
        return [StoredEvent(str(entry.number), entry.event) for entry in found]

    async def acknowledge(self, subscriber: str, part: int, entries: Sequence[str]) -> None:
        """Note that a subscriber has these events."""
        if not entries:
            return
        kept = self._parts[part]
        oldest = next(kept.unacknowledged(subscriber), None)
        if oldest is not None and int(entries[0]) > oldest.number:
            raise ValueError("an event before these has not been acknowledged")
        position = max(kept.acknowledged.get(subscriber, 0), int(entries[-1]))
        kept.acknowledged[subscriber] = position
        kept.remove_acknowledged()

    async def wait(self, seen: int, seconds: float) -> int:
        """Wait until more than `seen` writes are known, or `seconds` have passed."""
        return await self._writes.wait(seen, seconds)

    async def figures(self) -> LogFigures:
        """Return the current figures."""
        now = self._clock()
        oldest = [part.entries[0].written_at for part in self._parts if part.entries]
        stored = sum(len(part.entries) for part in self._parts)
        return LogFigures(stored, now - min(oldest, default=now), self._trimmed)

    def _trim(self, now: float) -> None:
        """Remove events that are too old or too many."""
        limit = max(1, self._options.size // len(self._parts))
        for part in self._parts:
            while part.entries and (
                len(part.entries) > limit or now - part.entries[0].written_at > self._options.retention
            ):
                self._trimmed += part.remove_oldest()
