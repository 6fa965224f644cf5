"""Leases: whoever dies is noticed, and its users leave once; whoever only stood still comes back."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.server.engine.contract.harness import Node
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.node_process import NOBODY, NodeProcess, node_process_running
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET, STARTED
from tocsin_server.core.events import ServerRefresh
from tocsin_server.engine.nodes import ControlCommand, SurveyRequest
from tocsin_server.engine.redis import encoding
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.membership.failure_detector import FailureDetector
from tocsin_server.errors import Unanswered
from tocsin_server.protocol.messages import ClientInfo, Push


@pytest.fixture
async def apart(redis_server: RedisServer, prefix: str) -> AsyncIterator[NodeProcess]:
    """A node in another process."""
    async with node_process_running(redis_server.url, prefix, "apart") as node:
        yield node


def left(node: Node) -> list[str]:
    """The clients whose leaving was heard."""
    return [push.leave.info.client for _, push in node.handler.pushes if push.leave]


def joined(node: Node) -> list[str]:
    return [push.join.info.client for _, push in node.handler.pushes if push.join]


async def test_the_users_of_a_killed_node_leave_once(
    running: Running, node: Node, apart: NodeProcess, redis_server: RedisServer, prefix: str
) -> None:
    """Whoever of the others reaps.

    A user who is there with another connection does not leave, unless it has no name; nor does anybody whose
    joining was not announced.
    """
    async with running(redis_server.url, "n2") as other:
        for each in (node, other):
            await each.broker.subscribe("news")
        for client, user in (("c1", "1"), ("c2", "2"), ("c3", "3"), ("c3b", "3"), ("c5", NOBODY)):
            await apart.add("news", client, user)
        await apart.do("add", "news", "c4", "4")
        await other.presence.add("news", ClientInfo("2", "c9"), is_announced=True)
        await other.presence.add("news", ClientInfo("", "c8"), is_announced=True)
        apart.signal(signal.SIGKILL)
        for each in (node, other):
            await each.handler.until_pushed(4)
        assert sorted(await node.presence.members("news")) == ["c8", "c9"]
        assert await node.presence.stats("news") == (2, 2)
        await each_is_buried(redis_server, prefix, "apart")
        await asyncio.sleep(QUIET)  # a second set of leaves would come now
        for each in (node, other):
            assert sorted(left(each)) == ["c1", "c3", "c3b", "c5"]
        assert redis_server.command("KEYS", f"{prefix}:node:apart*") == []


async def each_is_buried(server: RedisServer, prefix: str, uid: str) -> None:
    """Wait until no lease of a node is left."""
    async with asyncio.timeout(STARTED):
        while leases(server, prefix, uid):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(QUIET / 10)


async def test_a_node_that_stood_still_comes_back(node: Node, apart: NodeProcess) -> None:
    """Others took it for dead; once it goes on, its users are there again, and everybody is told."""
    await node.broker.subscribe("news")
    await apart.add("news", "c1", "1")
    apart.signal(signal.SIGSTOP)
    await node.handler.until(lambda: left(node) == ["c1"])
    assert not await node.presence.members("news")
    apart.signal(signal.SIGCONT)
    await node.handler.until(lambda: joined(node) == ["c1"])
    assert list(await node.presence.members("news")) == ["c1"]
    assert sorted(report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes) == [
        "apart",
        "n1",
    ]


async def test_a_node_that_was_declared_dead_takes_a_new_lease(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Also if nobody has reaped the old one yet; then it does so itself, and nobody has left."""
    await node.broker.subscribe("news")
    await node.presence.add("news", ClientInfo("1", "c1"), is_announced=True)
    (lease,) = leases(redis_server, prefix, "n1")
    redis_server.command("HSET", f"{prefix}:nodes", lease, "dead")
    async with asyncio.timeout(STARTED):
        while not leases(redis_server, prefix, "n1") - {lease}:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(QUIET / 10)
    await each_is_buried(redis_server, prefix, lease.decode())
    assert list(await node.presence.members("news")) == ["c1"]
    assert left(node) == []


@pytest.fixture
def nobody_is_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it is silent: a lease lapses in hardly more time than an answer may take."""
    monkeypatch.setattr(FailureDetector, "expired", lambda *_: iter(()))


@pytest.mark.usefixtures("nobody_is_taken_for_dead")
async def test_a_survey_names_the_node_that_does_not_answer(node: Node, apart: NodeProcess) -> None:
    """Who is alive and silent is somebody, and is known by what was heard of it before."""
    heard = await node.nodes.survey(SurveyRequest(wants_channels=True))
    (known,) = [report for report in heard.nodes if report.uid == "apart"]
    apart.signal(signal.SIGSTOP)
    survey = await node.nodes.survey(SurveyRequest())
    assert [report.uid for report in survey.nodes] == ["n1"]
    assert [(one.uid, one.name, one.state) for one in survey.silent] == [("apart", known.name, "silent")]
    assert survey.silent[0].num_clients == 0
    assert not survey.silent[0].channels


@pytest.mark.usefixtures("nobody_is_taken_for_dead")
async def test_an_order_names_the_node_that_does_not_obey(node: Node, apart: NodeProcess) -> None:
    """The others do."""
    apart.signal(signal.SIGSTOP)
    with pytest.raises(Unanswered, match="no answer from node apart"):
        await node.nodes.publish_control(ControlCommand("42", ServerRefresh()))
    assert node.handler.commands == [ControlCommand("42", ServerRefresh())]


async def test_a_node_that_leaves_with_entries_leaves_them_to_others(
    running: Running, node: Node, redis_server: RedisServer
) -> None:
    """At once: nobody has to wait for its lease."""
    await node.broker.subscribe("news")
    async with running(redis_server.url, "n2") as other:
        await other.presence.add("news", ClientInfo("1", "c1"), is_announced=True)
    await node.handler.until(lambda: left(node) == ["c1"])
    assert not await node.presence.members("news")


async def test_nobody_waits_for_a_node_that_has_left(
    node: Node, running: Running, redis_server: RedisServer, prefix: str
) -> None:
    """Not even if it had just moved to a new lease, and the old one has not lapsed yet."""
    async with running(redis_server.url, "n2"):
        before = leases(redis_server, prefix, "n2")
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(STARTED):
            while leases(redis_server, prefix, "n2") <= before:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(QUIET / 10)
    assert [report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes] == ["n1"]


async def test_a_cut_connection_makes_nobody_leave(
    node: Node, running: Running, redis_server: RedisServer, prefix: str
) -> None:
    """The node takes a new lease and moves its entries; what lapses then is empty."""
    await node.broker.subscribe("news")
    async with running(redis_server.url, "n2") as other:
        infos = [ClientInfo(f"{number}", f"c{number}") for number in range(500)]
        await asyncio.gather(*(other.presence.add("news", info, is_announced=True) for info in infos))
        before = leases(redis_server, prefix, "n2")
        redis_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(STARTED):
            while before <= leases(redis_server, prefix, "n2"):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(QUIET / 10)
        await each_is_buried(redis_server, prefix, before.pop().decode())
        assert len(await node.presence.members("news")) == 500
        pushes: list[tuple[str, Push]] = node.handler.pushes
        assert pushes == []
        assert [one.engine.health.reaped_nodes for one in (node, other)] == [0, 0], "both live"
        await asyncio.gather(*(other.presence.remove("news", info.client) for info in infos))
    assert redis_server.command("KEYS", f"{prefix}:node:n2*") == []


def leases(server: RedisServer, prefix: str, uid: str) -> set[bytes]:
    return {lease for lease in server.command("HKEYS", f"{prefix}:nodes") if lease.startswith(uid.encode())}


async def test_a_heartbeat_costs_the_same_however_many_are_present(
    node: Node, redis_server: RedisServer
) -> None:
    """One write in a second, not one for each connection."""
    await asyncio.gather(*(node.presence.add("news", ClientInfo("1", f"c{number}")) for number in range(300)))
    redis_server.command("CONFIG", "RESETSTAT")
    await asyncio.sleep(6 * QUIET)
    stats = redis_server.client.info("commandstats")
    assert isinstance(stats, dict)
    assert sum(command["calls"] for command in stats.values()) < 30
    await asyncio.gather(*(node.presence.remove("news", f"c{number}") for number in range(300)))


async def test_ten_thousand_members_can_be_read(node: Node, redis_server: RedisServer, prefix: str) -> None:
    """And counted."""
    infos = [ClientInfo(f"{number % 100}", f"c{number}") for number in range(10_000)]
    entries: dict[Any, Any] = {
        info.client: encoding.encode_presence_entry("n9.x", False, info) for info in infos
    }
    keys = Keys(prefix)
    redis_server.client.hset(keys.presence("news"), mapping=entries)
    redis_server.client.hset(keys.users("news"), mapping={f"{user}": 100 for user in range(100)})
    assert len(await node.presence.members("news")) == 10_000
    assert await node.presence.stats("news") == (10_000, 100)
