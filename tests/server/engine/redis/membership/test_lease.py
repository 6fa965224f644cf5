"""Leases: a dead node is detected, and its users leave once. A node that was only stopped returns."""

import asyncio
import signal

import pytest

from tests.server.engine.contract.harness import Node
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.membership.lease_state import joined, leases, leases_are_reaped, left
from tests.server.engine.redis.node_process import NodeProcess
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET, STARTED, TICK
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.protocol.messages import ClientInfo, Push


@pytest.mark.usefixtures("short_leases")
async def test_a_node_that_was_stopped_returns(node: Node, node_process: NodeProcess) -> None:
    """Its lease has expired. When it continues, its clients join again."""
    await node.broker.subscribe("news")
    await node_process.add("news", "c1", "1")
    node_process.signal(signal.SIGSTOP)
    await node.handler.until(lambda: left(node) == ["c1"])
    assert not await node.presence.members("news")
    node_process.signal(signal.SIGCONT)
    await node.handler.until(lambda: joined(node) == ["c1"])
    assert list(await node.presence.members("news")) == ["c1"]
    assert sorted(report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes) == [
        "n1",
        "other",
    ]


@pytest.mark.usefixtures("short_leases")
async def test_a_node_whose_lease_is_dead_takes_a_new_one(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """It reaps the old lease itself, and its users do not leave."""
    await node.broker.subscribe("news")
    await node.presence.add("news", ClientInfo("1", "c1"), is_announced=True)
    async with asyncio.timeout(STARTED):  # on a machine that stalls it may have taken a new one
        while len(found := leases(redis_server, prefix, "n1")) != 1:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(TICK)
    (lease,) = found
    redis_server.command("HSET", f"{prefix}:nodes", lease, "dead")
    async with asyncio.timeout(STARTED):
        while not leases(redis_server, prefix, "n1") - {lease}:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(QUIET / 10)
    await leases_are_reaped(redis_server, prefix, lease.decode())
    assert list(await node.presence.members("news")) == ["c1"]
    assert left(node) == []


async def test_a_broken_connection_causes_no_leaves(
    node: Node, running: Running, redis_server: RedisServer, prefix: str
) -> None:
    """The node takes a new lease and moves its entries. The old lease is then empty."""
    await node.broker.subscribe("news")
    async with running(redis_server.url, "n2") as other:
        infos = [ClientInfo(f"{number}", f"c{number}") for number in range(500)]
        await asyncio.gather(*(other.presence.add("news", info, is_announced=True) for info in infos))
        before = leases(redis_server, prefix, "n2")
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(STARTED):
            while before <= leases(redis_server, prefix, "n2"):  # noqa: ASYNC110 - there is no event to await
                await asyncio.sleep(QUIET / 10)
        await leases_are_reaped(redis_server, prefix, before.pop().decode())
        assert len(await node.presence.members("news")) == 500
        pushes: list[tuple[str, Push]] = node.handler.pushes
        assert pushes == []
        assert [one.engine.health.reaped_nodes for one in (node, other)] == [0, 0], "both nodes are alive"
        await asyncio.gather(*(other.presence.remove("news", info.client) for info in infos))
    assert redis_server.command("KEYS", f"{prefix}:node:n2*") == []


async def test_a_node_whose_lease_another_one_has_removed_is_found_dead(
    node: Node, redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So what it could not say is said at once, also by a node that was not the first to find it dead."""
    monkeypatch.setattr("tocsin_server.engine.redis.membership.lease.RENEW_SECONDS", TICK / 2)
    monkeypatch.setattr("tocsin_server.engine.redis.membership.failure_detector.LEASE_SECONDS", 3600)
    assert isinstance(node.engine, RedisEngine)
    lease = node.engine._lease
    assert lease is not None
    found: list[str] = []
    lease.on_node_dead = found.append
    redis_server.command("HSET", f"{prefix}:nodes", "other.abcdef", "0")
    async with asyncio.timeout(STARTED):
        while "other" not in lease._alive:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(QUIET / 10)
        assert found == []
        redis_server.command("HDEL", f"{prefix}:nodes", "other.abcdef")
        while not found:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(QUIET / 10)
    assert found == ["other"]


async def test_the_cost_of_a_lease_does_not_grow_with_the_clients(
    node: Node, redis_server: RedisServer
) -> None:
    """One command per second, not one for each client."""
    await asyncio.gather(*(node.presence.add("news", ClientInfo("1", f"c{number}")) for number in range(300)))
    redis_server.command("CONFIG", "RESETSTAT")
    await asyncio.sleep(6 * QUIET)
    stats = redis_server.client.info("commandstats")
    assert isinstance(stats, dict)
    assert sum(command["calls"] for command in stats.values()) < 30
    await asyncio.gather(*(node.presence.remove("news", f"c{number}") for number in range(300)))
