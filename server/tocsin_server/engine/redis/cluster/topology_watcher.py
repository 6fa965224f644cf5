"""The lookout: keeps an eye on the topology of a cluster, and looks again whenever there is doubt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import NoReturn

from tocsin_server.engine.redis.cluster.discovery import Scout
from tocsin_server.engine.redis.cluster.slots import Host, Topology
from tocsin_server.engine.redis.connections.address import Address
from tocsin_server.engine.redis.connections.backoff import Backoff
from tocsin_server.engine.redis.connections.connection import FAILURES, reason

LOOK_SECONDS = 2.0
"""How often to look when nothing gives rise to doubt.

A master that was cut off from the others goes on announcing to whoever hears it: only the others know better.
"""

PAUSE_SECONDS = 0.1
"""Between two looks at least. While slots move or a master is gone, calls wait for the next one."""


class Lookout:
    """`adopt` is told of every topology that was seen, and is done with it before whoever waits goes on."""

    def __init__(
        self, address: Address, client_name: str, random: Random, adopt: Callable[[Topology], Awaitable[None]]
    ) -> None:
        self.scout = Scout(address, client_name)
        self.trouble = f"Redis Cluster at {address.name} has not been reached yet."
        """Why nobody can say who serves what, or what is wrong with the cluster, as a sentence; or empty."""
        self._random = random
        self._backoff = Backoff(random)
        self._adopt = adopt
        self._hosts = frozenset[Host]()
        self._doubt = asyncio.Event()
        self._hint: Host | None = None
        self._waiters: list[asyncio.Future[None]] = []

    def doubt(self) -> None:
        """What is known may be wrong: look soon."""
        self._doubt.set()

    def hint(self, host: Host) -> None:
        """Who is said to know. Asked first, next time."""
        if host.name:
            self._hint = host

    async def look_again(self) -> None:
        """Wait for a look that begins after now, and finds somebody who answers."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        self._doubt.set()
        await waiter

    async def run(self, trusted: Callable[[], Iterable[Host]]) -> NoReturn:
        """Look until cancelled. `trusted` has the servers that are known to be there."""
        while True:
            await self._look([*trusted()])
            await asyncio.sleep(PAUSE_SECONDS)
            await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._doubt.wait()
        except TimeoutError:
            return

    async def _look(self, trusted: list[Host]) -> None:
        self._doubt.clear()
        waiters, self._waiters = self._waiters, []
        try:
            topology = await self.scout.look(self._in_order(trusted))
        except FAILURES as error:
            self._waiters += [waiter for waiter in waiters if not waiter.done()]
            self._doubt.set()
            self.trouble = f"Redis Cluster at {self.scout.name} cannot be used: {reason(error)}."
            await asyncio.sleep(self._backoff.next())
            return
        self._backoff.reset()
        why = topology.trouble
        self.trouble = f"Redis Cluster at {self.scout.name} cannot be used: {why}." if why else ""
        self._hosts = topology.hosts
        await self._adopt(topology)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _in_order(self, trusted: list[Host]) -> list[Host]:
        """All servers, those first that probably know, and are there."""
        others = [*self._hosts, *self.scout.hosts]
        self._random.shuffle(trusted)
        self._random.shuffle(others)
        hint, self._hint = self._hint, None
        return list(dict.fromkeys([*([hint] if hint else []), *trusted, *others]))
