"""Connections of users in Redis: a dead node gives its share back, and Redis may lose the counts."""

import asyncio
import signal

import pytest

from tests.server.engine.contract.harness import Node
from tests.server.engine.contract.test_user_connections import is_added
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.node_process import NodeProcess
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET, STARTED
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.user_connections import RedisUserConnections
from tocsin_server.errors import EngineError


def users_of(node: Node) -> RedisUserConnections:
    assert isinstance(node.engine.users, RedisUserConnections)
    return node.engine.users


@pytest.mark.usefixtures("short_leases")
async def test_a_killed_node_gives_its_share_back(
    node: Node, node_process: NodeProcess, redis_server: RedisServer, prefix: str
) -> None:
    """As soon as its lease has expired, exactly."""
    await node_process.do("connect", "ann", "c1")
    await node_process.do("connect", "ann", "c2")
    assert not await is_added(node, "d0", 2)
    node_process.signal(signal.SIGKILL)
    async with asyncio.timeout(STARTED):
        while not await is_added(node, "d1", 2):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(QUIET / 10)
    assert await is_added(node, "d2", 2)
    assert not await is_added(node, "d3", 2)
    assert redis_server.command("HLEN", Keys(prefix).connections("ann")) == 2


async def test_a_renewal_writes_lost_connections_again(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """And removes those that ended."""
    name = Keys(prefix).connections("ann")
    assert await is_added(node, "c1", 2)
    redis_server.command("DEL", name)
    redis_server.command("HSET", name, "ended", "n1", "of another node", "n9")
    await users_of(node).renew()
    assert redis_server.command("HGETALL", name) == {b"c1": b"n1", b"of another node": b"n9"}
    assert redis_server.command("PTTL", name) > 0


async def test_a_removal_that_failed_is_repeated(
    running: Running, proxy: BlackholeProxy, redis_server: RedisServer, prefix: str
) -> None:
    """When Redis can be reached again. The user then has no connections, and no key."""
    async with running(proxy.url) as node:
        assert await is_added(node, "c1", 1)
        users = users_of(node)
        users._commands, commands = FailingCommands(), users._commands  # type: ignore[assignment]
        with pytest.raises(EngineError):
            await users.remove("ann", "c1")
        with pytest.raises(EngineError):
            await users.add("bob", "c2", 1)
        users._commands = commands
        await users.renew()
        assert not users._own
        assert not users._adding
        assert not redis_server.command("EXISTS", Keys(prefix).connections("ann"))


class FailingCommands:
    """Redis cannot be reached."""

    def execute(self, *_: object) -> asyncio.Future[object]:
        failed = asyncio.get_running_loop().create_future()
        failed.set_exception(EngineError("gone"))
        return failed

    run_script = execute


async def test_a_connection_that_is_being_added_is_not_removed_by_a_renewal(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """The reply to the add may not have been read yet."""
    assert await is_added(node, "c1", 3)
    added = asyncio.create_task(is_added(node, "c2", 3))
    await asyncio.sleep(0)
    await asyncio.gather(users_of(node).renew(), added)
    assert redis_server.command("HLEN", Keys(prefix).connections("ann")) == 2


async def test_a_connection_is_counted_while_redis_is_full(
    running: Running, volatile_redis: RedisServer
) -> None:
    """A user who has connections keeps them, and the limit holds."""
    async with running(volatile_redis.url) as node:
        volatile_redis.command("CONFIG", "SET", "maxmemory", 1)
        assert await is_added(node, "c1", 1)
        assert not await is_added(node, "c2", 1)
        await users_of(node).renew()
