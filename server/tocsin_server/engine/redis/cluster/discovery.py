"""The scout: asks the servers of a cluster who serves what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from typing import TypeVar

from tocsin_server.engine.redis.cluster.slots import SLOTS, Host, Topology, parse_topology
from tocsin_server.engine.redis.connections.address import Address, Dialler
from tocsin_server.engine.redis.connections.connection import FAILURES, pack, reason
from tocsin_server.engine.redis.requirements import OLDEST_CLUSTER, check_version, server_facts
from tocsin_server.errors import EngineError

ANSWER_SECONDS = 1.0
"""For a server to be reached and to answer, before the next one is asked."""

Found = TypeVar("Found")


class Scout:
    """Knows the servers that the address names, and how to reach any other."""

    def __init__(self, address: Address, client_name: str) -> None:
        self._address = address
        self._client_name = client_name
        self.name = address.name
        self.hosts = [Host(*host) for host in address.hosts]

    def address_of(self, host: Host) -> Address:
        """The address of one server of the cluster."""
        return replace(self._address, name=str(host), hosts=[(host.name, host.port)])

    async def examine(self) -> None:
        """See to it that there is a cluster that serves all slots and is not too old. Raises EngineError."""
        host, facts = await self._translated(self._first_facts())
        if facts.get("redis_mode") != "cluster":
            raise EngineError(
                f"Redis at {host} is not a cluster: engine.url must begin with redis:// or rediss://"
            )
        check_version(facts, str(host), OLDEST_CLUSTER, " as part of a cluster, for sharded pub/sub")
        topology = await self._translated(self.look([host, *self.hosts]))
        if topology.trouble:
            raise EngineError(f"Redis Cluster at {self.name} cannot be used: {topology.trouble}")

    async def _translated(self, answer: Awaitable[Found]) -> Found:
        try:
            return await answer
        except FAILURES as error:
            raise EngineError(f"Redis Cluster at {self.name} cannot be used: {reason(error)}") from None

    async def _first_facts(self) -> tuple[Host, dict[str, str]]:
        """What the first named server that answers says of itself. Raises one of FAILURES if none does."""
        failure: Exception = OSError("no server is named")
        for host in self.hosts:
            try:
                return host, await server_facts(Dialler(self.address_of(host), self._client_name))
            except FAILURES as error:
                failure = error
        raise failure

    async def look(self, hosts: Iterable[Host]) -> Topology:
        """What the first of these servers says that is content with its cluster, else the first that answers.

        Raises one of FAILURES if none does.
        """
        found: Topology | None = None
        failure: Exception = OSError("no server is known")
        for host in hosts:
            try:
                topology = await self._ask(host)
            except FAILURES as error:
                failure = error
                continue
            if not topology.trouble:
                return topology
            found = found or topology
        if found is None:
            raise failure
        return found

    async def _ask(self, host: Host) -> Topology:
        dialler = Dialler(self.address_of(host), self._client_name)
        async with asyncio.timeout(ANSWER_SECONDS), dialler.connected() as connection:
            info, slots = await connection.ask(pack("CLUSTER", "INFO"), pack("CLUSTER", "SLOTS"))
        topology = parse_topology(slots, host)
        if topology.uncovered:
            return replace(topology, trouble=f"only {SLOTS - topology.uncovered} of {SLOTS} slots are served")
        if b"cluster_state:ok" not in bytes(info):
            return replace(topology, trouble="it says that it is down")
        return topology
