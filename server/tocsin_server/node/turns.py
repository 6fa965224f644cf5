"""Turns: connections with many commands run some of them in each turn of the event loop, in rotation.

A session runs commands at once until its turn is used up; then its connection is queued here. Each turn of
the loop begins with new input, and goes on with some queued connections, so that a client with few commands
never waits for a client with thousands.

The mutable state is the queue and whether a callback is scheduled. Only the methods of `TurnQueue` change it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Owner = TypeVar("Owner")

TURN_SECONDS = 0.002
"""After this time no further connection gets its turn before the loop reads new input."""

OWNERS_PER_TURN = 8
"""How many connections get a turn before the loop reads new input.

Each of them may then use as much again at once, so that this bounds what all of them use together.
"""


class TurnQueue(Generic[Owner]):
    """Calls `run_turn(owner)` once for each owner that was added, a few in each turn of the loop."""

    def __init__(
        self, run_turn: Callable[[Owner], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run_turn = run_turn
        self._clock = clock
        self._queue: deque[Owner] = deque()
        self._queued: set[Owner] = set()
        self._is_scheduled = False

    def __len__(self) -> int:
        """Return how many owners wait for their turn."""
        return len(self._queue)

    def add(self, owner: Owner) -> None:
        """Queue an owner for its turn. Does nothing if it is queued already."""
        if owner not in self._queued:
            self._queued.add(owner)
            self._queue.append(owner)
            self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        end = self._clock() + TURN_SECONDS
        try:
            for _ in range(min(len(self._queue), OWNERS_PER_TURN)):
                owner = self._queue.popleft()
                self._queued.discard(owner)
                self._run_turn(owner)
                if self._clock() >= end:
                    break
        finally:  # all owners share the callback, so it goes on even if one owner's turn raises
            if self._queue:
                self._schedule()
