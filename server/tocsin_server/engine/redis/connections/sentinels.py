"""Sentinels: who is the master, as those say who have seen the latest failover."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel

from tocsin_server.engine.redis.connections.connection import FAILURES, reason

LATE_SECONDS = 0.2
"""How long the others are waited for once one has named a master: one that is frozen must not delay much."""


class Named(NamedTuple):
    """A master that a Sentinel names. The greatest comes from who has seen the latest failover."""

    epoch: int
    """Of its configuration: each failover has a greater one."""
    is_promoted: bool
    """Whether a failover is under way there, and this is the one that it promotes."""
    host: str
    port: int


class Sentinels(Sentinel):
    """Asks all of them at once.

    redis-py believes the first that answers. While that one is behind, or stuck in a failover, it names the
    old master: nodes would go on there, and what it took in the meantime would be lost.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Where the master is. Raises MasterNotFoundError with what those said who name none."""
        asking = [asyncio.create_task(self._ask(one, service_name)) for one in self.sentinels]
        try:
            named, complaints = await _answers(asking)
        finally:
            for one in asking:
                one.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if not named:
            said = ", ".join(sorted(complaints)) or "it is unknown to them, or down"
            raise MasterNotFoundError(f"no Sentinel names a master of {service_name}: {said}")
        newest = max(named)
        return newest.host, newest.port

    async def _ask(self, sentinel: Redis, service_name: str) -> Named | None:
        masters: Any = await sentinel.sentinel_masters()
        state = masters.get(service_name)
        address: Any = await sentinel.sentinel_get_master_addr_by_name(service_name)
        if not state or not address:
            return None
        host, port = address
        is_promoted = (host, port) != (state["ip"], state["port"])
        if not is_promoted and not self.check_master_state(state, service_name):
            return None
        return Named(int(state["config-epoch"]), is_promoted, host, port)


async def _answers(asking: Sequence[asyncio.Task[Named | None]]) -> tuple[list[Named], set[str]]:
    """What each named, and the complaints of those who could not be asked."""
    named: list[Named] = []
    complaints: set[str] = set()
    waiting = set(asking)
    while waiting:
        patience = LATE_SECONDS if named else None
        done, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        for one in done:
            try:
                if master := one.result():
                    named.append(master)
            except FAILURES as error:
                complaints.add(reason(error))
    return named, complaints
