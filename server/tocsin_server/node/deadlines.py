"""One timer for all deadlines of a node: a heap of deadlines, and the loop's timer set to the first of them.

A session has one deadline, which mostly moves later (a pong arrived). So an entry that is due too early is
looked up again instead of being cancelled, and a connection costs one heap entry, not a timer.

The mutable state is the heap, each owner's one entry in it, and the timer; only `DeadlineQueue` changes it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

Owner = TypeVar("Owner")


DUE_PER_TURN = 32
"""How many deadlines are handled before the loop goes on: the tokens of thousands may expire together."""


TIMER_SECONDS = 0.001
"""The least time that the timer waits, by which a deadline may be handled late.

uvloop rounds to milliseconds, so that a shorter one comes early, many times.
"""


class DeadlineQueue(Generic[Owner]):
    """Calls `on_due(owner)` once the deadline that `deadline_of(owner)` returns has come."""

    def __init__(
        self,
        on_due: Callable[[Owner], None],
        deadline_of: Callable[[Owner], float | None],
        clock: Callable[[], float],
    ) -> None:
        self._on_due = on_due
        self._deadline_of = deadline_of
        self._clock = clock
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int]] = []
        self._owners: dict[int, Owner] = {}
        self._entries: dict[Owner, tuple[float, int]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many owners have a deadline."""
        return len(self._entries)

    def update(self, owner: Owner) -> None:
        """Read the owner's deadline again. Must be called after anything that may have moved it earlier."""
        deadline = self._deadline_of(owner)
        entry = self._entries.get(owner)
        if deadline is None or (entry is not None and entry[0] <= deadline):
            return
        if entry is not None:
            del self._owners[entry[1]]
        self._push(owner, deadline)

    def remove(self, owner: Owner) -> None:
        """Forget an owner. Does nothing if it has no deadline."""
        entry = self._entries.pop(owner, None)
        if entry is not None:
            del self._owners[entry[1]]

    def stop(self) -> None:
        """Forget all owners, and cancel the timer."""
        self._heap.clear()
        self._owners.clear()
        self._entries.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _push(self, owner: Owner, deadline: float) -> None:
        entry = (deadline, next(self._numbers))
        self._owners[entry[1]] = owner
        self._entries[owner] = entry
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = self._heap[0][0] - self._clock()
        delay = max(TIMER_SECONDS, delay) if delay > 0 else 0.0
        self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock()
        try:
            due_count = 0
            while self._heap and self._heap[0][0] <= now and due_count < DUE_PER_TURN:
                due_count += 1
                _, number = heapq.heappop(self._heap)
                owner = self._owners.pop(number, None)
                if owner is not None:
                    del self._entries[owner]
                    self._check(owner, now)
        finally:  # all owners share the timer, so it goes on even if one owner's callback raises
            if self._heap and self._timer is None:
                self._set_timer()

    def _check(self, owner: Owner, now: float) -> None:
        deadline = self._deadline_of(owner)
        if deadline is not None and deadline <= now:
            self._on_due(owner)
        self.update(owner)
