"""The presence checker: presence that Redis has lost comes back by itself."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.engine.contract.harness import Node
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.membership.lease_state import joined, leases, left
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.served_node import until
from tests.support.redis_cluster import RedisCluster
from tests.support.timing import QUIET, STARTED
from tocsin_server.engine.redis import presence_checker
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.protocol.messages import ClientInfo


@pytest.fixture(autouse=True)
def frequent_checks(monkeypatch: pytest.MonkeyPatch, short_leases: None) -> None:
    """Channels are checked with each renewal of the lease."""
    monkeypatch.setattr(presence_checker, "SWEEP_SECONDS", 0.0)


async def until_present(node: Node, channel: str, clients: int, users: int) -> None:
    """Wait until a channel has so many clients and users."""
    async with asyncio.timeout(STARTED):
        while await node.presence.stats(channel) != (clients, users):  # noqa: ASYNC110
            await asyncio.sleep(QUIET / 10)


@pytest.mark.parametrize("lost", [["presence"], ["users"], ["presence", "users"]])
async def test_evicted_presence_comes_back(
    node: Node, running: Running, redis_server: RedisServer, prefix: str, lost: list[str]
) -> None:
    """On every node, with the right number of users, and without joins: no client has left."""
    await node.broker.subscribe("news")
    keys = Keys(prefix)
    async with running(redis_server.url, "n2") as other:
        for each, client in ((node, "c1"), (node, "c2"), (other, "c3"), (other, "c4")):
            user = "1" if client in ("c1", "c3") else client
            await each.presence.add("news", ClientInfo(user, client), is_announced=True)
        redis_server.command("DEL", *(getattr(keys, name)("news") for name in lost))
        await until_present(node, "news", 4, 3)
        assert sorted(await node.presence.members("news")) == ["c1", "c2", "c3", "c4"]
        counts = {b"1": b"2", b"c2": b"1", b"c4": b"1"}
        await until(lambda: redis_server.client.hgetall(keys.users("news")) == counts)
        # One node may restore what both have lost.
        await until(lambda: any(each.engine.health.restored_channels for each in (node, other)))
        await asyncio.sleep(QUIET)
        assert joined(node) == left(node) == []
        await other.presence.remove("news", "c3")
        assert await node.presence.stats("news") == (3, 3)
        await other.presence.remove("news", "c4")
        assert await node.presence.stats("news") == (2, 2)


async def test_evicted_presence_comes_back_on_a_cluster(
    running: Running, redis_cluster: RedisCluster, prefix: str
) -> None:
    """At each master."""
    keys, rooms = Keys(prefix), [f"room:{number}" for number in range(12)]
    async with running(redis_cluster.url) as node:
        for room in rooms:
            await node.presence.add(room, ClientInfo("1", "c1"))
        for room in rooms:
            redis_cluster.master_of(room).command("DEL", keys.presence(room), keys.users(room))
        for room in rooms:
            await until_present(node, room, 1, 1)


async def test_presence_that_was_partly_written_again_comes_back(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """A client that subscribes after the loss does not hide it."""
    for client in ("c1", "c2", "c3"):
        await node.presence.add("news", ClientInfo("1", client))
    redis_server.command("DEL", Keys(prefix).presence("news"), Keys(prefix).users("news"))
    await node.presence.add("news", ClientInfo("2", "c4"))
    await until_present(node, "news", 4, 2)


async def test_counts_without_entries_do_not_stay(node: Node, redis_server: RedisServer, prefix: str) -> None:
    """Redis evicted the entries, the clients left, and others came."""
    await node.presence.add("news", ClientInfo("1", "c1"))
    redis_server.command("DEL", Keys(prefix).presence("news"))
    await node.presence.remove("news", "c1")
    await node.presence.add("news", ClientInfo("2", "c2"))
    assert await node.presence.stats("news") == (1, 1)


async def test_everything_comes_back_after_a_flush(
    node: Node, redis_server: RedisServer, prefix: str, running: Running, volatile_redis: RedisServer
) -> None:
    """The node takes a new lease, and all its entries are written under it."""
    async with running(volatile_redis.url) as flushed:
        for number in range(500):
            await flushed.presence.add(f"room:{number % 50}", ClientInfo(f"{number}", f"c{number}"))
        volatile_redis.command("FLUSHALL")
        for number in range(50):
            await until_present(flushed, f"room:{number}", 10, 10)
        assert leases(volatile_redis, prefix, "n1")


async def test_a_lost_list_of_channels_comes_back(node: Node, redis_server: RedisServer, prefix: str) -> None:
    """Otherwise the entries of the node would stay for ever if it died."""
    await node.presence.add("news", ClientInfo("1", "c1"))
    (lease,) = leases(redis_server, prefix, "n1")
    key = Keys(prefix).lease_channels(lease.decode())
    redis_server.command("DEL", key)
    async with asyncio.timeout(STARTED):
        while redis_server.command("SMEMBERS", key) != {b"news"}:  # noqa: ASYNC110 - no event to await
            await asyncio.sleep(QUIET / 10)


async def statistics_with(server: RedisServer, command: str) -> dict[str, Any]:
    """Wait until Redis has executed a command. Returns the statistics of all commands."""
    async with asyncio.timeout(STARTED):
        while command not in (stats := server.client.info("commandstats")):  # noqa: ASYNC110 - no event
            await asyncio.sleep(QUIET)
    assert isinstance(stats, dict)
    return stats


LEASE_LOST = {"own_lease_expired", "lease_reaped", "redis_disconnected"}


async def test_a_complete_presence_is_not_written_again(
    node: Node, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check reads, and its cost does not grow with the clients."""
    for number in range(100):
        await node.presence.add("news", ClientInfo("1", f"c{number}"))
    for _ in range(5):  # a node whose lease expires while the machine stalls writes its entries again
        redis_server.command("CONFIG", "RESETSTAT")
        with capture_logs() as logs:
            stats = await statistics_with(redis_server, "cmdstat_hexists")
        if not LEASE_LOST & {entry["event"] for entry in logs}:
            break
    assert stats["cmdstat_hexists"]["calls"] <= 60
    assert "cmdstat_hset" not in stats
    assert not [entry for entry in logs if entry["event"] == "lost_presence_restored"]
    assert node.engine.health.restored_channels == 0
