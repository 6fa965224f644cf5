"""Loop turns: how many calls of one kind share the event loop with everything else.

In each turn of the event loop, calls run for about `TURN_SECONDS` together. The others wait, first come,
first served, so that thousands at once delay nothing else by more. The mutable state is when the turn began,
and which calls wait; only the methods of `LoopTurns` change it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

TURN_SECONDS = 0.001
"""A publication takes some 20 µs with an engine in memory. A turn of the loop costs as much."""

ITEMS_AT_ONCE = 64
"""How many items `map` takes before it looks at the time: about 200 µs where decoding one takes 3 µs."""

SHORT_CALLS = 8
"""How many short calls run without a turn, whose end costs a turn of the loop: some 300 µs together."""

FEW_ITEMS = 8
"""So many `map` takes without a turn: they cost about as much as the command that they answer."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class LoopTurns:
    """Gives each call its turn. One for all calls of a kind on a node."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._began_at: float | None = None
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._short_count = 0
        """How many short calls have run since a turn ended."""
        self._is_reserved = False
        """Whether the turn belongs to a call that was woken and does not run yet."""

    def take(self) -> bool:
        """Whether the caller may run one call now, synchronously. If not, it must `wait`."""
        if self._began_at is not None:
            return self._clock() - self._began_at < TURN_SECONDS
        if not self._is_reserved:
            self._begin()
        return not self._is_reserved

    def take_short(self) -> bool:
        """The same for a caller whose one call is short. A few of them run without the cost of a turn."""
        if self._short_count < SHORT_CALLS and self._began_at is None and not self._is_reserved:
            self._short_count += 1
            return True
        return self.take()

    async def wait(self) -> None:
        """Return when the caller may run one call, synchronously: at once, or in a later turn."""
        if self.take():
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end()  # the turn was given to it
            raise
        self._begin()

    async def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return `function(item)` for all items, however many there are."""
        if len(items) <= FEW_ITEMS:
            return [function(item) for item in items]
        results: list[Result] = []
        for start in range(0, len(items), ITEMS_AT_ONCE):
            await self.wait()
            results += [function(item) for item in items[start : start + ITEMS_AT_ONCE]]
        return results

    def _begin(self) -> None:
        self._is_reserved = False
        self._began_at = self._clock()
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # a system call, before Python 3.12
        self._loop.call_soon(self._end)

    def _end(self) -> None:
        """End the turn, in the next turn of the loop, and give the next one to the first call that waits."""
        self._began_at = None
        self._is_reserved = False
        self._short_count = 0
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._is_reserved = True
                return
