"""Subscriptions: what a link is to hear, what Redis has confirmed of it, and what is still to be asked."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from tocsin_server.engine.redis.interfaces import Hear

COMMAND_NAMES = 200
"""Names in one command: a thousand channels are neither a thousand commands nor one that stalls Redis."""


UNCONFIRMED_NAMES = 2000
"""What is asked for at most before Redis has confirmed some of it: one that reads nothing costs no memory."""


class Command(NamedTuple):
    """What to send next."""

    is_subscribe: bool
    names: list[bytes]


class Wish:
    """A change that is to be asked for or was, and who waits for Redis to confirm it."""

    __slots__ = ("_waiters", "is_wanted")

    def __init__(self, is_wanted: bool) -> None:
        self.is_wanted = is_wanted
        self._waiters: list[asyncio.Future[None]] = []

    def wait(self) -> asyncio.Future[None]:
        """Done once the change is confirmed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def adopt(self, other: Wish) -> None:
        """Let whoever waits for another wish wait for this one."""
        self._waiters += other._waiters

    def take_over(self, other: Wish) -> None:
        """Let whoever waits for another wish wait for this one, and no more for that."""
        self.adopt(other)
        other._waiters = []

    def confirm(self) -> None:
        """Tell all who wait."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Subscriptions:
    """Synchronous. For each name the last wish counts; wishes that have not left yet become one.

    want() | forget() --> pending --take()--> asked --confirm()--> confirmed
    """

    def __init__(self) -> None:
        self._hears: dict[bytes, Hear] = {}
        self._confirmed: set[bytes] = set()
        self._pending: dict[bytes, Wish] = {}
        self._asked: deque[tuple[bytes, Wish]] = deque()
        self._last_asked: dict[bytes, Wish] = {}
        self._lost: set[bytes] = set()
        self._restoring: set[bytes] = set()

    def hear_of(self, name: bytes) -> Hear | None:
        """Who is to be told what is announced under a name."""
        return self._hears.get(name)

    def want(self, name: bytes, hear: Hear) -> asyncio.Future[None] | None:
        """Hear a name. None if it is heard already; else what to wait for."""
        self._hears[name] = hear
        return self._wish(name, is_wanted=True)

    def forget(self, name: bytes) -> asyncio.Future[None] | None:
        """Hear a name no more. None if it is not heard anyway; else what to wait for."""
        self._hears.pop(name, None)
        return self._wish(name, is_wanted=False)

    def _wish(self, name: bytes, *, is_wanted: bool) -> asyncio.Future[None] | None:
        wish = self._pending.pop(name, None)
        if wish is None:
            asked = self._last_asked.get(name)
            if asked is not None and asked.is_wanted == is_wanted:
                return asked.wait()
            if asked is None and (name in self._confirmed) == is_wanted:
                return None
            wish = Wish(is_wanted)
        wish.is_wanted = is_wanted
        self._pending[name] = wish
        return wish.wait()

    # ------------------------------------------------------------------------------------------- connections

    def begin(self) -> None:
        """A new connection hears nothing yet: everything that is wanted must be asked for."""
        wishes = [*self._asked, *self._pending.items()]
        self._lost |= self._confirmed
        self._confirmed.clear()
        self._asked.clear()
        self._last_asked.clear()
        self._pending = {name: Wish(is_wanted=True) for name in self._hears}
        for name, wish in wishes:
            if name in self._pending:
                self._pending[name].adopt(wish)
            else:
                wish.confirm()
        self._restoring = set(self._pending)

    def take(self) -> Command | None:
        """What to send next, or None. From here on it counts as asked."""
        if not self.has_more:
            return None
        names: list[bytes] = []
        is_subscribe = next(iter(self._pending.values())).is_wanted
        for name, wish in self._pending.items():
            if wish.is_wanted != is_subscribe or len(names) == COMMAND_NAMES:
                break
            names.append(name)
        for name in names:
            wish = self._pending.pop(name)
            self._asked.append((name, wish))
            self._last_asked[name] = wish
        return Command(is_subscribe, names)

    def confirm(self, name: bytes) -> None:
        """Redis confirmed what was asked longest ago; it confirms in the order of asking."""
        asked, wish = self._asked.popleft()
        if asked != name:
            raise ValueError("Redis confirmed what was not asked")
        if self._last_asked.get(name) is wish:
            del self._last_asked[name]
        if wish.is_wanted:
            self._confirmed.add(name)
        else:
            self._confirmed.discard(name)
        self._restoring.discard(name)
        wish.confirm()

    @property
    def has_more(self) -> bool:
        """Whether there is something to send now."""
        return bool(self._pending) and len(self._asked) < UNCONFIRMED_NAMES

    @property
    def is_restored(self) -> bool:
        """Whether everything that was wanted when this connection began is heard again."""
        return not self._restoring

    @property
    def missing(self) -> int:
        """How many names of those are not heard yet."""
        return len(self._restoring)

    def take_restored(self) -> list[bytes]:
        """The names that were heard before, were not for a while, and are again."""
        restored = [name for name in self._lost if name in self._confirmed]
        self._lost.clear()
        return restored
