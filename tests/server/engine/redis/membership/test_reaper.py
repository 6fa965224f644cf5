"""The reaper: the users of a dead node leave, each once."""

import asyncio
import signal

import pytest

from tests.server.engine.contract.harness import Node
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.membership.lease_state import leases_are_reaped, left
from tests.server.engine.redis.node_process import ANONYMOUS, NodeProcess
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET
from tocsin_server.protocol.messages import ClientInfo


@pytest.mark.usefixtures("short_leases")
async def test_the_users_of_a_killed_node_leave_once(
    running: Running, node: Node, node_process: NodeProcess, redis_server: RedisServer, prefix: str
) -> None:
    """Each leave is published once, although two nodes may reap.

    No leave is published for a user with another connection, unless the user is anonymous. The same holds for
    a client whose join was not published.
    """
    async with running(redis_server.url, "n2") as other:
        for each in (node, other):
            await each.broker.subscribe("news")
        for client, user in (("c1", "1"), ("c2", "2"), ("c3", "3"), ("c3b", "3"), ("c5", ANONYMOUS)):
            await node_process.add("news", client, user)
        await node_process.do("add", "news", "c4", "4")
        await other.presence.add("news", ClientInfo("2", "c9"), is_announced=True)
        await other.presence.add("news", ClientInfo("", "c8"), is_announced=True)
        node_process.signal(signal.SIGKILL)
        for each in (node, other):
            await each.handler.until_pushed(4)
        assert sorted(await node.presence.members("news")) == ["c8", "c9"]
        assert await node.presence.stats("news") == (2, 2)
        await leases_are_reaped(redis_server, prefix, "other")
        await asyncio.sleep(QUIET)  # duplicate leaves would arrive now
        for each in (node, other):
            assert sorted(left(each)) == ["c1", "c3", "c3b", "c5"]
        assert redis_server.command("KEYS", f"{prefix}:node:other*") == []


@pytest.mark.usefixtures("short_leases")
async def test_the_entries_of_a_stopped_node_are_reaped_at_once(
    running: Running, node: Node, redis_server: RedisServer
) -> None:
    """Other nodes need not wait until its lease expires."""
    await node.broker.subscribe("news")
    async with running(redis_server.url, "n2") as other:
        await other.presence.add("news", ClientInfo("1", "c1"), is_announced=True)
    await node.handler.until(lambda: left(node) == ["c1"])
    assert not await node.presence.members("news")
