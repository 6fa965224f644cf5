"""The event log interface: keeps lifecycle events until every subscriber has acknowledged them.

    node --write--> parts of the log --read, acknowledge--> node with the claim to a part, for a subscriber

The events of one session, and those of one channel, are in one part, in their order. A subscriber is one
receiver of all events, such as one webhook. Subscribers are independent: each has a position of its own in
each part, so that a slow one delays no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from tocsin_server.core.lifecycle import EventBatch, LifecycleEvent, WriteOutcome
from tocsin_server.errors import EngineError


class StoredEvent(NamedTuple):
    """An event in the log."""

    entry: str
    """Names it within its part. Later events have other entries; only the log compares them."""
    event: LifecycleEvent


class ClaimLost(EngineError):
    """This node may not read or acknowledge, because it has no claim, or another node has taken it over."""

    def __init__(self) -> None:
        super().__init__("this node has no claim to this part of the event log")


class LogFigures(NamedTuple):
    """Figures of an event log, for metrics. They are those of all nodes."""

    stored: int = 0
    """How many events are kept."""
    oldest_seconds: float = 0.0
    """How long ago the oldest of them was written."""
    trimmed: int = 0
    """How many events were removed before every subscriber had acknowledged them."""


class WriteCount:
    """How many writes are known, for any number of readers that wait for the next one.

    The mutable state is the count, and the future of those that wait for its change.
    """

    def __init__(self) -> None:
        self._count = 0
        self._changed: asyncio.Future[None] | None = None

    def increment(self) -> None:
        """Count a write, and wake all readers."""
        self._count += 1
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)

    async def wait(self, seen: int, seconds: float) -> int:
        """Wait as `EventReader.wait` describes."""
        if self._count <= seen:
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.shield(self._changed)
        return self._count


class EventReader(Protocol):
    """How a node reads the log for a subscriber. Every method raises EngineError if the store is away."""

    @property
    def parts(self) -> int:
        """The number of parts, which are 0, 1, 2 … It does not change while the engine runs."""

    async def claim(self, subscriber: str, part: int) -> bool:
        """Let this node alone read a part for a subscriber. False if a live node has the claim.

        Also False if this node has its share of the parts: the live nodes that claim parts for the subscriber
        have about as many each. So a node tries again every second.

        A claim ends with `release`, and with the node: when its lease is reaped, another node can claim the
        part. A node that has the claim may claim again, which costs one command. A new subscriber begins with
        the oldest event that is kept.
        """

    async def release(self, subscriber: str, part: int) -> None:
        """Give up a claim. Idempotent."""

    async def surplus(self, subscriber: str) -> int:
        """Return how many parts this node should release, because other nodes have fewer of them."""

    async def leave(self, subscriber: str) -> None:
        """Let other nodes claim this node's share for a subscriber, too. Its next claim ends that."""

    async def read(self, subscriber: str, part: int, limit: int) -> Sequence[StoredEvent]:
        """Return the oldest events, at most `limit`, that the subscriber has not acknowledged. Does not wait.

        Until they are acknowledged, the next read returns them again. Raises ClaimLost.
        """

    async def acknowledge(self, subscriber: str, part: int, entries: Sequence[str]) -> None:
        """Note that a subscriber has the events with these entries: the first of the last read, in order.

        Idempotent. Raises ClaimLost, and ValueError if an event before them has not been acknowledged.
        """

    async def wait(self, seen: int, seconds: float) -> int:
        """Wait until more than `seen` writes are known, or `seconds` have passed. Returns how many are.

        A reader begins with 0, and reads again after each return. The notice of another node's write may be
        lost, so `seconds` bounds the delay.
        """


class EventLog(EventReader, Protocol):
    """The event log of one node: the node writes, and subscribers read."""

    async def open(self, node: str, live: Container[str] = ()) -> None:
        """Begin to write, with batch 1. Raises EngineError; then the caller must try again before it writes.

        `node` is the name of this node, which is in the events that another node writes for it.
        After a loss of data, this also says the end of the sessions that the store still knows from before,
        except those of the clients in `live`, which the next batches must contain. After REAPED and
        WRITTEN_AND_REAPED it says the end of all those that no other node has said yet.
        """

    async def write(self, batch: EventBatch) -> WriteOutcome:
        """Write a batch in one step. Raises EngineError: then the outcome is unknown, and the caller repeats.

        After REAPED, WRITTEN_AND_REAPED and STATE_LOST the caller must `open` again.
        """

    async def close(self) -> None:
        """End writing. If sessions of this node are left in the log, a live node says their end.

        Raises EngineError. Then other nodes do the same once this node's lease has expired.
        """

    async def figures(self) -> LogFigures:
        """Return the current figures."""
