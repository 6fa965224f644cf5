"""The topology watcher: reads the topology again regularly, and whenever it may be stale."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import NoReturn

from tocsin_server.engine.redis.cluster.discovery import Discovery
from tocsin_server.engine.redis.cluster.slots import Host, Topology
from tocsin_server.engine.redis.connections.address import Address
from tocsin_server.engine.redis.connections.connection import CONNECTION_ERRORS, describe
from tocsin_server.engine.redis.connections.connector import Backoff

REREAD_SECONDS = 2.0
"""The interval between two reads if nothing suggests that the topology is stale.

A master that is cut off from the other servers goes on serving its clients. Only the other servers know
that it has been replaced.
"""

REREAD_PAUSE_SECONDS = 0.1
"""The shortest pause between two reads of the topology.

While slots move or a master is down, commands wait for the next one.
"""


class TopologyWatcher:
    """Calls `apply` with every topology that it reads.

    The mutable state, and the methods that change it:

        _is_stale           invalidate(), wait_for_reread(), and _reread() if it fails, set it;
                            _reread() clears it first
        _suggested_host     suggest_host() sets it; _reread() uses it once
        _waiters            wait_for_reread() adds a caller; _reread() releases them
        _hosts              _reread(), as unready_reason
    """

    def __init__(
        self, address: Address, client_name: str, random: Random, apply: Callable[[Topology], Awaitable[None]]
    ) -> None:
        self.discovery = Discovery(address, client_name)
        self.unready_reason = f"Redis Cluster at {address.name} has not been reached yet."
        """Why the topology is unknown, or what is wrong with the cluster, as a sentence.

        Empty if nothing is.
        """
        self._random = random
        self._backoff = Backoff(random)
        self._apply = apply
        self._hosts = frozenset[Host]()
        self._is_stale = asyncio.Event()
        self._suggested_host: Host | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def invalidate(self) -> None:
        """Mark the topology as possibly stale, so that it is read again soon."""
        self._is_stale.set()

    def suggest_host(self, host: Host) -> None:
        """Read the next topology from this server first, because a redirect named it."""
        if host.name:
            self._suggested_host = host

    async def wait_for_reread(self) -> None:
        """Wait for a successful read of the topology that begins after this call."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._is_stale.set()
        await waiter

    async def run(self, preferred_hosts: Callable[[], Iterable[Host]]) -> NoReturn:
        """Read the topology until cancelled. `preferred_hosts` returns servers that are known to work."""
        while True:
            await self._reread([*preferred_hosts()])
            await asyncio.sleep(REREAD_PAUSE_SECONDS)
            await self._wait_until_stale_or_due()

    async def _wait_until_stale_or_due(self) -> None:
        try:
            async with asyncio.timeout(REREAD_SECONDS):
                await self._is_stale.wait()
        except TimeoutError:
            return

    async def _reread(self, preferred: list[Host]) -> None:
        self._is_stale.clear()
        waiters, self._waiters = self._waiters, []
        try:
            topology = await self.discovery.read_topology(self._hosts_in_order(preferred))
        except CONNECTION_ERRORS as error:
            self._waiters += [waiter for waiter in waiters if not waiter.done()]
            self._is_stale.set()
            self.unready_reason = self._unusable(describe(error))
            await asyncio.sleep(self._backoff.next())
            return
        self._backoff.reset()
        self.unready_reason = self._unusable(topology.problem) if topology.problem else ""
        self._hosts = topology.hosts
        await self._apply(topology)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _unusable(self, why: str) -> str:
        return f"Redis Cluster at {self.discovery.name} cannot be used: {why}."

    def _hosts_in_order(self, preferred: list[Host]) -> list[Host]:
        """All servers: first the suggested one, then the preferred ones, then the others."""
        others = [*self._hosts, *self.discovery.hosts]
        self._random.shuffle(preferred)
        self._random.shuffle(others)
        suggested, self._suggested_host = self._suggested_host, None
        return list(dict.fromkeys([*([suggested] if suggested else []), *preferred, *others]))
