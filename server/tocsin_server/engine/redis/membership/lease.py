"""The lease: this node's claim to be alive, renewed every second, and the reaping of expired leases."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from random import Random
from typing import NoReturn

import structlog

from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.interfaces import Commands
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import (
    DEAD,
    FailureDetector,
    digest_of,
    node_of,
)
from tocsin_server.engine.redis.pipeline import CommandRejected
from tocsin_server.engine.redis.presence import RedisPresenceStore
from tocsin_server.errors import EngineError

RENEW_SECONDS = 1.0

SUFFIX_LETTERS = 6

MAX_HELD_LEASES = 4
"""How many leases a node renews if its connection breaks again before its entries have moved.

Others expire.
"""

NOTICE_SECONDS = 1.5
"""After so long, other nodes have read the leases again, and know of this node."""

HINT = (
    "nodes disagree about which channels keep history, as during a rolling update. Until they agree, reading "
    "the history of a channel without publications stores a key for a minute"
)

log = structlog.get_logger()

Reap = Callable[[str], Awaitable[bool]]
"""Removes the presence entries of a dead lease. Returns False if another node is reaping it."""


class Lease:
    """The lease of one node: a name in Redis with a count that the node increments. No clock is shared.

    The node takes a new lease, to which all its presence entries move, in three cases:
    1. It has a new connection, which may lead to a Redis that lost data.
    2. The outcome of a presence command is unknown.
    3. Other nodes have marked its lease as dead.
    The node renews the old lease until the entries have moved. Then the old lease expires like that of a dead
    node, and the entries that are left under it are reaped.

    While the lease is alive, each renewal starts a check of some entries (see presence_checker).

    The mutable state is the held leases, the tasks that move and check entries, the leases that are being
    reaped, and the nodes that were alive at the last renewal.
    """

    def __init__(
        self,
        uid: str,
        keys: Keys,
        commands: Commands,
        presence: RedisPresenceStore,
        reap: Reap,
        random: Random,
        check_entries: Callable[[], Awaitable[None]],
    ) -> None:
        self._uid = uid
        self.digest = ""
        """The digest of which channels keep history, as others may read it. The owner sets it."""
        self.on_alive: Callable[[frozenset[str]], None] = lambda _uids: None
        """Called after each renewal with the uids of the nodes that have a live lease."""
        self.on_node_dead: Callable[[str], None] = lambda _uid: None
        """Called with the uid of a node whose last lease has expired, or is gone."""
        self._keys = keys
        self._commands = commands
        self._presence = presence
        self._reap = reap
        self._random = random
        self._check_entries = check_entries
        self._detector = FailureDetector()
        self._connection_count = 0
        self._held: list[str] = []
        self._moving: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self._reaping: set[str] = set()
        self._alive: frozenset[str] = frozenset()
        self.unready_reason = ""
        """Why Redis rejects the renewal, as a sentence. Then it rejects every other write, too."""
        self.reaped_nodes = 0
        """How many dead nodes this node has reaped."""
        self.is_mixed = False
        """Whether a live node has, or may have, another configuration of histories."""

    @property
    def name(self) -> str:
        """The lease under which entries are written now."""
        return self._held[-1]

    async def register(self) -> None:
        """Take the first lease. Raises EngineError if Redis cannot be reached.

        If other nodes have another configuration of histories, this waits until they know of this node.
        """
        await self._acquire()
        flat = await self._commands.execute("HGETALL", self._keys.nodes)
        self._compare_digests(
            name for name, count in zip(flat[::2], flat[1::2], strict=True) if count != DEAD
        )
        if self.is_mixed:
            await asyncio.sleep(NOTICE_SECONDS)

    async def run(self, tasks: asyncio.TaskGroup) -> NoReturn:
        """Renew the lease until cancelled. Expired leases of other nodes are reaped in `tasks`."""
        loop = asyncio.get_running_loop()
        while True:
            began_at = loop.time()
            try:
                await self._renew(tasks)
                self.unready_reason = ""
            except EngineError as error:
                is_rejected = isinstance(error, CommandRejected)
                self.unready_reason = f"Redis accepts no writes: {error}." if is_rejected else ""
                log.warning("lease_renewal_failed", error=str(error))
            await asyncio.sleep(max(0.0, began_at + RENEW_SECONDS - loop.time()))

    async def release(self) -> None:
        """Deregister this node.

        Other nodes stop waiting for its responses, and reap its presence entries immediately.
        """
        for lease in await self._commands.execute("HKEYS", self._keys.nodes):
            if lease == self.name.encode() and self._presence.is_empty:
                await self._commands.execute("HDEL", self._keys.nodes, lease)
                await self._commands.execute("DEL", self._keys.lease_channels(self.name))
            elif node_of(lease) == self._uid:
                await self._commands.execute("HSET", self._keys.nodes, lease, DEAD)

    async def _renew(self, tasks: asyncio.TaskGroup) -> None:
        flat = await self._commands.run_script(scripts.LEASE_RENEW, [self._keys.nodes], *self._held)
        now = asyncio.get_running_loop().time()
        counts = dict(zip(flat[::2], flat[1::2], strict=True))
        is_continuous = self.name.encode() in counts and not self._has_new_connection
        if not self._is_moving and self._must_move(counts.get(self.name.encode(), DEAD)):
            await self._acquire()
            self._moving = tasks.create_task(_logging_errors(self._move_entries))
        elif not self._is_moving and not _is_active(self._checking):
            self._checking = tasks.create_task(_logging_errors(self._check_entries))
        expired = dict(self._detector.expired(counts, now))
        live_leases = counts.keys() - expired.keys()
        self._compare_digests(live_leases)
        alive = frozenset(node_of(name) for name in live_leases)
        self.on_alive(alive)
        before, self._alive = self._alive, alive
        if is_continuous:  # otherwise Redis may have lost leases of live nodes
            for uid in before - alive - set(map(node_of, expired)):
                self.on_node_dead(uid)  # another node was the first to find it dead, or it stopped
        for name, count in expired.items():
            lease = name.decode()
            if lease not in self._reaping and lease not in self._held:
                self._reaping.add(lease)
                expire = partial(self._expire, lease, count, is_node_dead=node_of(name) not in alive)
                tasks.create_task(_logging_errors(expire))

    @property
    def _is_moving(self) -> bool:
        return _is_active(self._moving)

    def _must_move(self, count: bytes) -> bool:
        if count == DEAD:
            log.warning("own_lease_expired", lease=self.name)
            return True
        return self._has_new_connection or self._presence.is_uncertain

    @property
    def _has_new_connection(self) -> bool:
        return self._connection_count != self._commands.connection_count

    async def _acquire(self) -> None:
        """Take a new lease. From here on, entries are written under it."""
        self._connection_count = self._commands.connection_count
        suffix = "".join(self._random.choices(string.ascii_letters, k=SUFFIX_LETTERS))
        if self.digest:
            suffix = f"{suffix}-{self.digest}"
        lease = f"{self._uid}.{suffix}"  # see node_of and digest_of
        await self._commands.run_script(scripts.LEASE_ACQUIRE, [self._keys.nodes], lease)
        self._held = [*self._held[1 - MAX_HELD_LEASES :], lease]
        self._presence.use_lease(lease)

    async def _move_entries(self) -> None:
        await self._presence.register()
        del self._held[:-1]

    def _compare_digests(self, live_leases: Iterable[bytes]) -> None:
        """Compare the digests of the live nodes with this one's."""
        others = {
            digest_of(name)
            for name in live_leases
            if node_of(name) != self._uid and digest_of(name) != self.digest
        }
        if bool(others) != self.is_mixed:
            self.is_mixed = bool(others)
            if others:
                log.warning("configurations_of_histories_differ", hint=HINT)
            else:
                log.info("configurations_of_histories_agree")

    async def _expire(self, lease: str, count: bytes, *, is_node_dead: bool) -> None:
        try:
            if await self._commands.run_script(scripts.LEASE_EXPIRE, [self._keys.nodes], lease, count):
                if is_node_dead:
                    self.on_node_dead(node_of(lease.encode()))
                self.reaped_nodes += await self._reap(lease) and is_node_dead and count != DEAD
        finally:
            self._reaping.discard(lease)


def _is_active(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()


async def _logging_errors(work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except EngineError as error:
        log.warning("lease_task_failed", error=str(error))
    except Exception:
        log.exception("lease_task_failed")
