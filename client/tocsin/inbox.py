"""A queue of events that the caller has not read yet, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from .binding import LoopBinding

EVENT_BYTES = 300  # counted for an event beside its payload, so that a million tiny ones count too
T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue whose writer never waits.

    It calls ``on_full`` once it holds more than ``limit_bytes``, and ``on_drained`` at half of that.
    ``on_full`` should stop the source. Items that are put nevertheless are kept.

    The mutable state is the items, their size and the closing error; only this class changes it.
    """

    def __init__(self, limit_bytes: int, on_full: Callable[[], None], on_drained: Callable[[], None]) -> None:
        self._limit = limit_bytes
        self._on_full = on_full
        self._on_drained = on_drained
        self._items: deque[tuple[T, int]] = deque()
        self._size = 0
        self._is_full = False
        self._is_closed = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self._binding = LoopBinding("subscription")

    def put(self, item: T, size: int) -> None:
        """Add one item, which took ``size`` bytes on the wire."""
        self._items.append((item, size + EVENT_BYTES))
        self._size += size + EVENT_BYTES
        self._changed.set()
        if self._size > self._limit and not self._is_full:
            self._is_full = True
            self._on_full()

    def close(self, error: Exception | None) -> None:
        """End the reading after the items still queued: with an error, or quietly (None).

        Only the first close counts.
        """
        if not self._is_closed:
            self._is_closed = True
            self._error = error
            self._changed.set()

    async def take(self) -> T:
        """Wait for the next item. Raises the closing error, or ``StopAsyncIteration``.

        Cancelling loses no item. Raises ``WrongUse`` if it would wait in another event loop.
        """
        while not self._items:
            if self._is_closed:
                raise self._error if self._error is not None else StopAsyncIteration
            self._binding.require()
            self._changed.clear()
            await self._changed.wait()
        item, size = self._items.popleft()
        self._size -= size
        if self._is_full and self._size <= self._limit // 2:
            self._is_full = False
            self._on_drained()
        return item
