"""Slots: how much is done at once, such as pages of history that are read, or hooks that are asked.

A page has a slot from its read until it is written to a transport. The size of the slot is how many bytes
the page may have. Owners (connections) take turns: each gets one slot, then the next owner, however many each
has asked for.

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
    """Slots are taken as long as their sizes fit into `limit` together; one fits always.

    An owner has at most `owner_limit` of them. Without a size, a slot counts as 1.
    """

    def __init__(self, limit: int, owner_limit: int = OWNER_SLOTS) -> None:
        self._limit = limit
        self._owner_limit = owner_limit
        self._taken: dict[Owner, int] = {}
        self._taken_count = 0
        self._taken_size = 0
        self._waiting: dict[Owner, deque[tuple[asyncio.Future[None], int]]] = {}
        self._next: dict[Owner, None] = {}  # owners that wait and may have another slot, in their order

    def __len__(self) -> int:
        """Return how many slots are taken."""
        return self._taken_count

    @asynccontextmanager
    async def slot(
        self, owner: Owner, within_seconds: float | None = None, size: int = 1
    ) -> AsyncIterator[None]:
        """Take a slot, and give it back at the end. Raises TimeoutError if none is free in time."""
        if not self.take_now(owner, size):
            await self.wait(owner, within_seconds, size)
        try:
            yield
        finally:
            self.give_back(owner, size)

    def take_now(self, owner: Owner, size: int = 1) -> bool:
        """Take a slot if one is free for the owner. `give_back` with this size must follow."""
        if not self.is_free_for(owner, size):
            return False
        self.take(owner, size)
        return True

    def is_free_for(self, owner: Owner, size: int = 1) -> bool:
        """Whether the owner may take a slot now: one is free, and no other waits."""
        if self._next or owner in self._waiting or not self._has_room(size):
            return False
        return self._taken.get(owner, 0) < self._owner_limit

    def _has_room(self, size: int) -> bool:
        return not self._taken_count or self._taken_size + size <= self._limit

    def take(self, owner: Owner, size: int = 1) -> None:
        """Take a slot that was free. `give_back` with this size must follow."""
        self._taken[owner] = self._taken.get(owner, 0) + 1
        self._taken_count += 1
        self._taken_size += size

    async def wait(self, owner: Owner, within_seconds: float | None = None, size: int = 1) -> None:
        """Wait until `_hand_out` has taken a slot for this owner. `give_back` with this size must follow.

        Raises TimeoutError if none is free in time. Then, and if it is cancelled, no slot is taken.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append((waiter, size))
        self._line_up(owner)
        try:
            async with asyncio.timeout(within_seconds):
                await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.give_back(owner, size)
            else:
                self._withdraw(owner, (waiter, size))
            raise

    def _line_up(self, owner: Owner) -> None:
        if owner in self._waiting and self._taken.get(owner, 0) < self._owner_limit:
            self._next.setdefault(owner)

    def _withdraw(self, owner: Owner, waiter: tuple[asyncio.Future[None], int]) -> None:
        waiters = self._waiting.get(owner)
        if waiters is None or waiter not in waiters:
            return  # `_hand_out` has left it out already
        waiters.remove(waiter)
        if not waiters:
            del self._waiting[owner]
            self._next.pop(owner, None)
        self._hand_out()  # it may have been the first, and too large for what is free

    def give_back(self, owner: Owner, size: int = 1) -> None:
        """Give a slot back, to the next that waits."""
        self._taken_count -= 1
        self._taken_size -= size
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
        self._line_up(owner)
        self._hand_out()

    def _hand_out(self) -> None:
        while self._next:
            owner = next(iter(self._next))
            waiters = self._waiting[owner]
            waiter, size = waiters[0]
            if not self._has_room(size):
                break
            del self._next[owner]
            waiters.popleft()
            if not waiter.done():  # its wait was cancelled, and `wait` has not learned of it yet
                self.take(owner, size)
                waiter.set_result(None)
            if not waiters:
                del self._waiting[owner]
            self._line_up(owner)
