"""Leases: a dead node is detected, and its users leave once. A node that was only stopped returns."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.server.engine.contract.harness import Node
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.node_process import ANONYMOUS, NodeProcess, node_process_running
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET, STARTED
from tocsin_server.core.events import ServerRefresh
from tocsin_server.engine.nodes import ControlCommand, SurveyRequest
from tocsin_server.engine.redis import encoding, nodes
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import FailureDetector
from tocsin_server.errors import Unanswered
from tocsin_server.protocol.messages import ClientInfo, Push


@pytest.fixture
async def node_process(redis_server: RedisServer, prefix: str) -> AsyncIterator[NodeProcess]:
    """A node in its own process."""
    async with node_process_running(redis_server.url, prefix, "other") as node:
        yield node


def left(node: Node) -> list[str]:
    """The clients whose leave was received."""
    return [push.leave.info.client for _, push in node.handler.pushes if push.leave]


def joined(node: Node) -> list[str]:
    """The clients whose join was received."""
    return [push.join.info.client for _, push in node.handler.pushes if push.join]


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


async def leases_are_reaped(server: RedisServer, prefix: str, uid: str) -> None:
    """Wait until no lease of a node is left."""
    async with asyncio.timeout(STARTED):
        while leases(server, prefix, uid):  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(QUIET / 10)


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
    (lease,) = leases(redis_server, prefix, "n1")
    redis_server.command("HSET", f"{prefix}:nodes", lease, "dead")
    async with asyncio.timeout(STARTED):
        while not leases(redis_server, prefix, "n1") - {lease}:  # noqa: ASYNC110 - there is no event to await
            await asyncio.sleep(QUIET / 10)
    await leases_are_reaped(redis_server, prefix, lease.decode())
    assert list(await node.presence.members("news")) == ["c1"]
    assert left(node) == []


@pytest.fixture
def no_lease_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease expires in hardly more time than a node has for its response."""
    monkeypatch.setattr(FailureDetector, "expired", lambda *_: iter(()))


@pytest.mark.usefixtures("no_lease_expires")
async def test_a_survey_names_a_silent_node(
    node: Node, node_process: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what an earlier survey returned about it."""
    survey = await node.nodes.survey(SurveyRequest(wants_channels=True))
    (known,) = [report for report in survey.nodes if report.uid == "other"]
    node_process.signal(signal.SIGSTOP)
    monkeypatch.setattr(nodes, "RESPONSE_SECONDS", QUIET)
    survey = await node.nodes.survey(SurveyRequest())
    assert [report.uid for report in survey.nodes] == ["n1"]
    assert [(one.uid, one.name, one.state) for one in survey.silent] == [("other", known.name, "silent")]
    assert survey.silent[0].num_clients == 0
    assert not survey.silent[0].channels


@pytest.mark.usefixtures("no_lease_expires")
async def test_a_control_command_names_a_silent_node(
    node: Node, node_process: NodeProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other nodes apply it."""
    node_process.signal(signal.SIGSTOP)
    monkeypatch.setattr(nodes, "RESPONSE_SECONDS", QUIET)
    with pytest.raises(Unanswered, match="no answer from node other"):
        await node.nodes.publish_control(ControlCommand("42", ServerRefresh()))
    assert node.handler.commands == [ControlCommand("42", ServerRefresh())]


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


@pytest.mark.usefixtures("short_leases")
async def test_a_survey_does_not_wait_for_a_stopped_node(
    node: Node, running: Running, redis_server: RedisServer, prefix: str
) -> None:
    """Even if it had just taken a new lease, and the old one has not expired yet."""
    async with running(redis_server.url, "n2"):
        before = leases(redis_server, prefix, "n2")
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(STARTED):
            while leases(redis_server, prefix, "n2") <= before:  # noqa: ASYNC110 - there is no event to await
                await asyncio.sleep(QUIET / 10)
    assert [report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes] == ["n1"]


@pytest.mark.usefixtures("short_leases")
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


def leases(server: RedisServer, prefix: str, uid: str) -> set[bytes]:
    return {lease for lease in server.command("HKEYS", f"{prefix}:nodes") if lease.startswith(uid.encode())}


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


async def test_ten_thousand_members_can_be_read(node: Node, redis_server: RedisServer, prefix: str) -> None:
    """They can also be counted."""
    infos = [ClientInfo(f"{number % 100}", f"c{number}") for number in range(10_000)]
    entries: dict[Any, Any] = {
        info.client: encoding.encode_presence_entry("n9.x", False, info) for info in infos
    }
    keys = Keys(prefix)
    redis_server.client.hset(keys.presence("news"), mapping=entries)
    redis_server.client.hset(keys.users("news"), mapping={f"{user}": 100 for user in range(100)})
    assert len(await node.presence.members("news")) == 10_000
    assert await node.presence.stats("news") == (10_000, 100)
