"""The lease: this node's claim to be alive, renewed every second, and its eye on the others'."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import NoReturn

import structlog

from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.interfaces import Calls
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import DEAD, Watch, node_of
from tocsin_server.engine.redis.pipeline import Refused
from tocsin_server.engine.redis.presence import RedisPresenceStore
from tocsin_server.errors import EngineError

BEAT_SECONDS = 1.0

MARK_LETTERS = 6

HELD_AT_MOST = 4
"""Leases of a node whose connection breaks again and again before its entries have moved. Others lapse."""

log = structlog.get_logger()

Reap = Callable[[str], Awaitable[bool]]
"""Takes a dead lease's entries away; says whether another node is not doing so already."""


class Lease:
    """A name in Redis with a number that grows. Whoever sees a number stand still reaps; no clock is shared.

    A new name, to which all own entries of presence move, is taken whenever Redis may know less or more of
    them than this node: after a new connection, which may lead to a Redis that lost something, after a call
    of unknown outcome, and after others took this node for dead. The old name is renewed until they have
    moved, then it lapses like that of a dead node, and whatever is left under it is reaped.
    """

    def __init__(
        self, uid: str, keys: Keys, calls: Calls, presence: RedisPresenceStore, reap: Reap, random: Random
    ) -> None:
        self._uid = uid
        self._keys = keys
        self._calls = calls
        self._presence = presence
        self._reap = reap
        self._random = random
        self._watch = Watch()
        self._connection = 0
        self._held: list[str] = []
        self._moving: asyncio.Task[None] | None = None
        self._reaping: set[str] = set()
        self.trouble = ""
        """Why Redis does not let this node renew it, as a sentence: then it takes no other write either."""
        self.reaped_nodes = 0
        """Nodes that died, and were reaped by this one."""

    @property
    def name(self) -> str:
        """The lease under which entries are written now."""
        return self._held[-1]

    async def register(self) -> None:
        """Take the first lease. Raises EngineError if Redis cannot be reached."""
        await self._take()

    async def run(self, tasks: asyncio.TaskGroup) -> NoReturn:
        """Renew until cancelled, and reap the leases of nodes that stopped doing so, in `tasks`."""
        loop = asyncio.get_running_loop()
        while True:
            began_at = loop.time()
            try:
                await self._beat(tasks)
                self.trouble = ""
            except EngineError as error:
                self.trouble = f"Redis takes no writes: {error}." if isinstance(error, Refused) else ""
                log.warning("the lease could not be renewed", error=str(error))
            await asyncio.sleep(max(0.0, began_at + BEAT_SECONDS - loop.time()))

    async def release(self) -> None:
        """Leave. Nobody expects answers of this node any more, and what it left others reap at once."""
        for lease in await self._calls.call("HKEYS", self._keys.nodes):
            if lease == self.name.encode() and self._presence.is_empty:
                await self._calls.call("HDEL", self._keys.nodes, lease)
                await self._calls.call("DEL", self._keys.lease_channels(self.name))
            elif node_of(lease) == self._uid:
                await self._calls.call("HSET", self._keys.nodes, lease, DEAD)

    async def _beat(self, tasks: asyncio.TaskGroup) -> None:
        flat = await self._calls.run_script(scripts.BEAT, [self._keys.nodes], *self._held)
        now = asyncio.get_running_loop().time()
        beats = dict(zip(flat[::2], flat[1::2], strict=True))
        if not self._is_moving and self._must_move(beats.get(self.name.encode(), DEAD)):
            await self._take()
            self._moving = tasks.create_task(_guarded(self._move))
        lapsed = dict(self._watch.look(beats, now))
        living = {node_of(name) for name in beats.keys() - lapsed.keys()}
        for name, beat in lapsed.items():
            lease = name.decode()
            if lease not in self._reaping and lease not in self._held:
                self._reaping.add(lease)
                is_death = beat != DEAD and node_of(name) not in living
                tasks.create_task(_guarded(partial(self._bury, lease, beat, is_death=is_death)))

    @property
    def _is_moving(self) -> bool:
        return self._moving is not None and not self._moving.done()

    def _must_move(self, beat: bytes) -> bool:
        if beat == DEAD:
            log.warning("this node was taken for dead, and is back", lease=self.name)
            return True
        return self._connection != self._calls.connections or self._presence.is_in_doubt

    async def _take(self) -> None:
        """Take a new lease; from here on entries are written under it."""
        self._connection = self._calls.connections
        mark = "".join(self._random.choices(string.ascii_letters, k=MARK_LETTERS))
        lease = f"{self._uid}.{mark}"  # see node_of
        await self._calls.call("HSET", self._keys.nodes, lease, 0)
        self._held = [*self._held[1 - HELD_AT_MOST :], lease]
        self._presence.move(lease)

    async def _move(self) -> None:
        await self._presence.register()
        del self._held[:-1]

    async def _bury(self, lease: str, beat: bytes, *, is_death: bool) -> None:
        try:
            if await self._calls.run_script(scripts.BURY, [self._keys.nodes], lease, beat):
                self.reaped_nodes += await self._reap(lease) and is_death
        finally:
            self._reaping.discard(lease)


async def _guarded(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except EngineError as error:
        log.warning("a lease could not be dealt with", error=str(error))
    except Exception:
        log.exception("a lease could not be dealt with")
