"""The Redis engine's connections of users: a hash for each user, in which each connection names its node."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import structlog

from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.interfaces import Commands
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import DEAD, node_of
from tocsin_server.errors import EngineError, TooManyConnections

TTL_MS = 3_600_000
"""How long a hash is kept that no node renews, because all its connections ended with their nodes."""

RENEW_SECONDS = 1.0
"""The interval between two steps of renewal."""

USERS_PER_STEP = 100
"""How many users one step renews at least. With more users, a step renews a part of them."""

STEPS = 900
"""In so many steps all users are renewed, a quarter of TTL_MS."""

log = structlog.get_logger()


class RedisUserConnections:
    """Implements UserConnections.

    A user who is at the limit may have connections of nodes that have died. They are removed when they are in
    the way, by the leases of the nodes at that moment. So a death costs nothing by itself.

    Redis may lose hashes, and a removal may fail. A renewal therefore writes each user's connections again, a
    few users a second.

    The mutable state is this node's own connections, those that are being added, and the users that are to be
    renewed. It changes synchronously, before the commands are awaited.
    """

    def __init__(self, keys: Keys, commands: Commands) -> None:
        self._keys = keys
        self._commands = commands
        self.uid = ""
        """The node's uid. The owner sets it."""
        self._own: dict[str, set[str]] = {}
        self._adding: dict[str, set[str]] = {}
        self._renewing: list[str] = []

    async def add(self, user: str, client: str, limit: int) -> None:
        """Add a connection of a user, as UserConnections describes."""
        self._adding.setdefault(user, set()).add(client)
        try:
            holders = await self._add(user, client, limit)
            if holders and (dead := set(holders) - await self._live_nodes()):
                holders = await self._add(user, client, limit, *sorted(dead))
        except (EngineError, asyncio.CancelledError):
            self._own.setdefault(user, set())  # a renewal removes it, if it was added
            raise
        finally:
            _discard(self._adding, user, client)
        if holders:
            raise TooManyConnections(limit)
        self._own.setdefault(user, set()).add(client)

    async def remove(self, user: str, client: str) -> None:
        """Remove a connection of a user. Idempotent."""
        _discard(self._own, user, client)
        try:
            await self._commands.execute("HDEL", self._keys.connections(user), client)
        except (EngineError, asyncio.CancelledError):
            self._own.setdefault(user, set())  # a renewal removes it
            raise

    async def run(self) -> NoReturn:
        """Renew the connections of all users, a few users a second, until cancelled."""
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self.renew()
            except EngineError as error:
                log.warning("user_connections_not_renewed", error=str(error))

    async def renew(self) -> None:
        """Write the connections of the next users again, and remove those that ended. Raises EngineError."""
        if not self._renewing:
            self._renewing = list(self._own)
        count = max(USERS_PER_STEP, len(self._own) // STEPS)
        users = [user for user in self._renewing[-count:] if user in self._own]
        await asyncio.gather(*(self._renew(user) for user in users))
        del self._renewing[-count:]

    async def _renew(self, user: str) -> None:
        own, adding = self._own[user], self._adding.get(user, set())
        await self._commands.run_script(
            scripts.USER_RENEW, [self._keys.connections(user)], self.uid, TTL_MS, len(own), *own, *adding
        )
        if not self._own.get(user, True):
            del self._own[user]

    async def _add(self, user: str, client: str, limit: int, *dead: str) -> list[str]:
        """Add a connection. If there are too many, returns their nodes instead."""
        reply = await self._commands.run_script(
            scripts.USER_ADD, [self._keys.connections(user)], client, self.uid, limit, TTL_MS, *dead
        )
        return [holder.decode() for holder in reply]

    async def _live_nodes(self) -> set[str]:
        flat = await self._commands.execute("HGETALL", self._keys.nodes)
        return {node_of(lease) for lease, count in zip(flat[::2], flat[1::2], strict=True) if count != DEAD}


def _discard(clients: dict[str, set[str]], user: str, client: str) -> None:
    found = clients.get(user)
    if found is not None:
        found.discard(client)
        if not found:
            del clients[user]
