"""Slots: how much is done at once, such as pages of history that are read, or hooks that are asked.

A page has a slot from its read until it is written to a transport. Owners (connections) take turns: each
gets one slot, then the next owner, however many each has asked for.

The mutable state is how many slots each owner has, and who waits. Only the methods of `Slots` change it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

Owner = TypeVar("Owner")

WAIT_SECONDS = 4.0
"""How long a command waits for a slot. SDKs give a command up after 5 seconds."""

OWNER_SLOTS = 4
"""How many pages one connection may have at once. Several hide the time that the engine takes."""


class Slots(Generic[Owner]):
    """At most `limit` slots are taken at once, and `owner_limit` by each owner."""

    def __init__(self, limit: int, owner_limit: int = OWNER_SLOTS) -> None:
        self._limit = limit
        self._owner_limit = owner_limit
        self._taken: dict[Owner, int] = {}
        self._taken_count = 0
        self._waiting: dict[Owner, deque[asyncio.Future[None]]] = {}
        self._next: dict[Owner, None] = {}  # owners that wait and may have another slot, in their order

    def __len__(self) -> int:
        """Return how many slots are taken."""
        return self._taken_count

    @asynccontextmanager
    async def slot(self, owner: Owner, within_seconds: float | None = None) -> AsyncIterator[None]:
        """Take a slot, and give it back at the end. Raises TimeoutError if none is free in time."""
        if not self.take_now(owner):
            await self.wait(owner, within_seconds)
        try:
            yield
        finally:
            self.give_back(owner)

    def take_now(self, owner: Owner) -> bool:
        """Take a slot if one is free. `give_back` must follow."""
        if owner in self._waiting or not self._may_take(owner):
            return False
        self._take(owner)
        return True

    def _may_take(self, owner: Owner) -> bool:
        return self._taken_count < self._limit and self._taken.get(owner, 0) < self._owner_limit

    def _take(self, owner: Owner) -> None:
        self._taken[owner] = self._taken.get(owner, 0) + 1
        self._taken_count += 1

    async def wait(self, owner: Owner, within_seconds: float | None = None) -> None:
        """Wait until `_hand_out` has taken a slot for this owner. `give_back` must follow.

        Raises TimeoutError if none is free in time. Then, and if it is cancelled, no slot is taken.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(waiter)
        self._line_up(owner)
        try:
            async with asyncio.timeout(within_seconds):
                await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.give_back(owner)
            else:
                self._withdraw(owner, waiter)
            raise

    def _line_up(self, owner: Owner) -> None:
        if owner in self._waiting and self._taken.get(owner, 0) < self._owner_limit:
            self._next.setdefault(owner)

    def _withdraw(self, owner: Owner, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(owner)
        if waiters is None or waiter not in waiters:
            return  # `_hand_out` has left it out already
        waiters.remove(waiter)
        if not waiters:
            del self._waiting[owner]
            self._next.pop(owner, None)

    def give_back(self, owner: Owner) -> None:
        """Give a slot back, to the next that waits."""
        self._taken_count -= 1
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
        self._line_up(owner)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._next and self._taken_count < self._limit:
            owner = next(iter(self._next))
            del self._next[owner]
            waiters = self._waiting[owner]
            waiter = waiters.popleft()
            if not waiter.done():  # its wait was cancelled, and `wait` has not learned of it yet
                self._take(owner)
                waiter.set_result(None)
            if not waiters:
                del self._waiting[owner]
            self._line_up(owner)
