"""Discovery: reads the topology of a cluster from its servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from typing import TypeVar

from tocsin_server.engine.redis.cluster.slots import SLOTS, Host, Topology, parse_topology
from tocsin_server.engine.redis.connections.address import Address
from tocsin_server.engine.redis.connections.connection import CONNECTION_ERRORS, describe, pack_command
from tocsin_server.engine.redis.connections.connector import (
    OLDEST_CLUSTER_VERSION,
    Connector,
    check_version,
    read_server_info,
)
from tocsin_server.errors import EngineError

SERVER_SECONDS = 1.0
"""How long to wait for one server before the next one is tried."""

Found = TypeVar("Found")


class Discovery:
    """Reads from the servers that the address names, or from any other server of the cluster."""

    def __init__(self, address: Address, client_name: str) -> None:
        self._address = address
        self._client_name = client_name
        self.name = address.name
        self.hosts = [Host(*host) for host in address.hosts]

    def address_of(self, host: Host) -> Address:
        """The address of one server of the cluster."""
        return replace(self._address, name=str(host), hosts=[(host.name, host.port)])

    async def check(self) -> None:
        """Check that the cluster serves all slots and is not too old. Raises EngineError if not."""
        host, info = await self._translated(self._first_server_info())
        if info.get("redis_mode") != "cluster":
            raise EngineError(
                f"Redis at {host} is not a cluster: engine.url must begin with redis:// or rediss://"
            )
        check_version(info, str(host), OLDEST_CLUSTER_VERSION, " as part of a cluster, for sharded pub/sub")
        topology = await self._translated(self.read_topology([host, *self.hosts]))
        if topology.problem:
            raise EngineError(f"Redis Cluster at {self.name} cannot be used: {topology.problem}")

    async def _translated(self, result: Awaitable[Found]) -> Found:
        try:
            return await result
        except CONNECTION_ERRORS as error:
            raise EngineError(f"Redis Cluster at {self.name} cannot be used: {describe(error)}") from None

    async def _first_server_info(self) -> tuple[Host, dict[str, str]]:
        """The info of the first named server that answers. Raises one of CONNECTION_ERRORS if none does."""
        failure: Exception = OSError("the address names no server")
        for host in self.hosts:
            try:
                return host, await read_server_info(Connector(self.address_of(host), self._client_name))
            except CONNECTION_ERRORS as error:
                failure = error
        raise failure

    async def read_topology(self, hosts: Iterable[Host]) -> Topology:
        """Read the topology from the first server that sees no problem, else from the first that answers.

        Raises one of CONNECTION_ERRORS if none answers.
        """
        found: Topology | None = None
        failure: Exception = OSError("no server is known")
        for host in hosts:
            try:
                topology = await self._read_from(host)
            except CONNECTION_ERRORS as error:
                failure = error
                continue
            if not topology.problem:
                return topology
            found = found or topology
        if found is None:
            raise failure
        return found

    async def _read_from(self, host: Host) -> Topology:
        connector = Connector(self.address_of(host), self._client_name)
        async with asyncio.timeout(SERVER_SECONDS), connector.connected() as connection:
            info, slots = await connection.execute(
                pack_command("CLUSTER", "INFO"), pack_command("CLUSTER", "SLOTS")
            )
        topology = parse_topology(slots, host)
        if unserved := topology.unserved_slots:
            return replace(topology, problem=f"only {SLOTS - unserved} of {SLOTS} slots are served")
        if b"cluster_state:ok" not in bytes(info):
            return replace(topology, problem="it reports that it is down")
        return topology
