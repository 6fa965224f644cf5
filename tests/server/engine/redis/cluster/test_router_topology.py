"""The router, with a topology that the test sets instead of a Redis Cluster."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from random import Random

import pytest

from tests.server.engine.redis.redis_server import RedisServer, free_ports
from tests.support.timing import QUIET, SOON
from tocsin_server.engine.redis.cluster.discovery import Discovery
from tocsin_server.engine.redis.cluster.router import Router
from tocsin_server.engine.redis.cluster.slots import SLOTS, Host, Topology, slot_of
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.supervisor import Supervisor


class FakeTopology:
    """Which server serves each slot. A router reads it in place of that of a cluster."""

    def __init__(self, owner: Host) -> None:
        self.owners = [owner] * SLOTS

    async def read(self, _hosts: Iterable[Host]) -> Topology:
        return Topology(list(self.owners), frozenset(self.owners))


@pytest.fixture
def unreachable() -> Host:
    """An address without a Redis."""
    return Host("127.0.0.1", free_ports(1)[0])


@pytest.fixture
def reachable(redis_server: RedisServer) -> Host:
    """A Redis that is used as a master."""
    return Host("127.0.0.1", redis_server.port)


@pytest.fixture
def topology(unreachable: Host, monkeypatch: pytest.MonkeyPatch) -> FakeTopology:
    """The topology of the router. An unreachable master serves all slots."""
    topology = FakeTopology(unreachable)
    monkeypatch.setattr(Discovery, "read_topology", topology.read)
    return topology


@pytest.fixture
async def router(topology: FakeTopology, prefix: str) -> AsyncIterator[Router]:
    address = parse_address("redis+cluster://127.0.0.1:1")
    router = Router(address, prefix, Supervisor(), Random(1), lambda _: None)
    task = asyncio.create_task(router.run("n1"))
    await router.wait_opened()
    yield router
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_master_that_is_replaced_during_the_start_is_not_awaited(
    router: Router, topology: FakeTopology, reachable: Host
) -> None:
    """Its probe can never be received. That of its replacement is awaited."""
    proving = asyncio.create_task(router.wait_proven())
    await asyncio.sleep(QUIET)
    assert not proving.done()
    topology.owners = [reachable] * SLOTS
    await asyncio.wait_for(proving, SOON)
    assert [shard.pubsub.proven.is_set() for shard in router.shards] == [True]


@pytest.mark.parametrize("key", ["key", b"key", 7])
async def test_a_command_goes_to_the_master_of_its_key(
    router: Router, topology: FakeTopology, reachable: Host, key: str | bytes | int
) -> None:
    """For every type that a key may have."""
    topology.owners[slot_of(key if isinstance(key, bytes) else str(key))] = reachable
    async with asyncio.timeout(SOON):
        while len(router.shards) < 2:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(QUIET / 10)
        assert await router.execute("EXISTS", key) == 0
