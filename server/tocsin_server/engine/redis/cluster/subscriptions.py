"""What a link to one master of a cluster is to hear; names come and go with the slots that they are in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from tocsin_server.engine.redis.cluster.slots import slot_of
from tocsin_server.engine.redis.interfaces import Hear
from tocsin_server.engine.redis.pubsub.subscriptions import Subscriptions, Wish


class Moved(NamedTuple):
    """A name on its way from one link to another: who hears it, who waits for it, whether it was heard."""

    name: bytes
    hear: Hear
    wish: Wish
    was_heard: bool


class ShardSubscriptions(Subscriptions):
    """Synchronous. Besides what can happen to any link, Redis may refuse a name, or take it away unasked.

    asked --refuse()--> refused --retry()--> pending …          confirmed --lose()--> refused
    anywhere --surrender()--> another link's adopt() --> pending …
    """

    def __init__(self) -> None:
        super().__init__()
        self._refused: dict[bytes, Wish] = {}
        self._astray: set[bytes] = set()  # were heard, here or at another link, and are not at present

    def begin(self) -> None:
        """A new connection hears nothing yet."""
        self.retry()
        self._lost |= self._astray
        self._astray.clear()
        super().begin()

    def take_found(self, name: bytes) -> bool:
        """Whether a name that went astray is heard again. Once."""
        is_found = name in self._astray and name in self._confirmed
        if is_found:
            self._astray.discard(name)
        return is_found

    def refuse(self, slot: int | None = None) -> None:
        """Redis refused what was asked longest ago: it does not serve the name, not yet or not any more.

        Unless that is in another slot than the one Redis speaks of. Then it refuses to forget a name that it
        had just taken away, and that was believed to be the answer.
        """
        if not self._asked or slot not in (None, slot_of(self._asked[0][0])):
            return
        name, wish = self._asked.popleft()
        if self._last_asked.get(name) is wish:
            del self._last_asked[name]
        newer = self._pending.get(name) or self._last_asked.get(name)
        self._restoring.discard(name)  # the link may be whole without it
        if name in self._lost:
            self._lost.discard(name)
            self._astray.add(name)
        if not wish.is_wanted or name not in self._hears:
            self._confirmed.discard(name)
            self._astray.discard(name)
            wish.confirm()
        elif newer is not None:
            newer.adopt(wish)
        else:
            self._refused[name] = wish

    def is_unasked(self, name: bytes) -> bool:
        """Whether Redis says of itself that a name is heard no more."""
        return not self._asked or self._asked[0][0] != name or self._asked[0][1].is_wanted

    def lose(self, name: bytes) -> None:
        """Redis took a name away unasked: its slot has moved."""
        self._confirmed.discard(name)
        if name in self._hears:
            self._astray.add(name)
            if name not in self._pending and name not in self._last_asked:
                self._refused[name] = Wish(is_wanted=True)

    def retry(self) -> None:
        """Ask once more for what was refused or taken away."""
        self._pending.update(self._refused)
        self._refused.clear()

    def surrender(self, is_elsewhere: Callable[[bytes], bool]) -> list[Moved]:
        """Give up the names that another link is to hear."""
        for wishes in (self._pending, self._last_asked):
            for name in [name for name in wishes if name not in self._hears and is_elsewhere(name)]:
                wishes.pop(name).confirm()  # to be forgotten, and heard here no more anyway
                self._restoring.discard(name)
        return [self._surrender(name) for name in list(self._hears) if is_elsewhere(name)]

    def _surrender(self, name: bytes) -> Moved:
        wish = Wish(is_wanted=True)
        for wishes in (self._refused, self._pending, self._last_asked):
            if (old := wishes.pop(name, None)) is not None:
                wish.take_over(old)
        was_heard = any(name in names for names in (self._confirmed, self._lost, self._astray))
        for names in (self._confirmed, self._lost, self._astray, self._restoring):
            names.discard(name)
        return Moved(name, self._hears.pop(name), wish, was_heard)

    def adopt(self, moved: Moved) -> None:
        """Hear a name that another link gave up."""
        self._hears[moved.name] = moved.hear
        if (older := self._pending.get(moved.name)) is not None:
            moved.wish.take_over(older)
        self._pending[moved.name] = moved.wish
        if moved.was_heard:
            self._astray.add(moved.name)

    def _wish(self, name: bytes, *, is_wanted: bool) -> asyncio.Future[None] | None:
        if (refused := self._refused.pop(name, None)) is not None:
            self._pending[name] = refused
        return super()._wish(name, is_wanted=is_wanted)
