"""A Redis Cluster that changes: nodes follow it, lose nothing that it kept, and say what is wrong."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from msgspec import Raw
from redis.exceptions import ResponseError

from tests.server.engine.contract.harness import LOG, NO_LOG, Node, publication
from tests.server.engine.redis.blackhole_proxy import blackhole_running
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.node_process import node_process_running
from tests.server.engine.redis.waiting import until_not_ready, until_ready, until_unready_reason
from tests.support.api import Api
from tests.support.configs import USUAL
from tests.support.redis_cluster import RedisCluster
from tests.support.server import serving
from tests.support.timing import SOON, TICK
from tests.support.wire import connected
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import ClientInfo, Position

ALL = HistoryQuery(limit=-1)


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """The shared one, whole before and afterwards."""
    redis_cluster.heal()
    yield redis_cluster
    redis_cluster.heal()


@pytest.fixture
def channels(cluster: RedisCluster) -> list[str]:
    """One channel of each master."""
    return cluster.channels_on_all()


@pytest.fixture
async def node(running: Running, cluster: RedisCluster) -> AsyncIterator[Node]:
    """A node over the cluster."""
    async with running(cluster.url) as node:
        yield node


class Traffic:
    """Publishes a number after the other in each channel, and keeps what was acknowledged."""

    def __init__(self, node: Node, channels: list[str]) -> None:
        self._node = node
        self.acknowledged: dict[str, list[tuple[bytes, Position]]] = {channel: [] for channel in channels}
        self.failed = 0
        self._tasks = [asyncio.create_task(self._publish(channel)) for channel in channels]

    async def _publish(self, channel: str) -> None:
        for number in itertools.count():
            data = b"%d" % number
            try:
                position = await self._node.broker.publish(channel, NewPublication(Raw(data)), LOG)
            except EngineError:
                self.failed += 1
            else:
                self.acknowledged[channel].append((data, position))
            await asyncio.sleep(0.002)

    async def until_acknowledged(self, channel: str, more: int = 20) -> None:
        """Wait until so many more publications of a channel were acknowledged."""
        goal = len(self.acknowledged[channel]) + more
        async with asyncio.timeout(SOON):
            while len(self.acknowledged[channel]) < goal:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(TICK / 10)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def listening(node: Node, channels: list[str]) -> None:
    await asyncio.gather(*(node.broker.subscribe(channel) for channel in channels))


async def hears(node: Node, *channels: str) -> None:
    """Everything that is published from now on."""
    mark = b"%d" % time.monotonic_ns()
    for channel in channels:
        await node.broker.publish(channel, NewPublication(Raw(mark)), NO_LOG)
    await node.handler.until(lambda: all(mark in node.handler.payloads(channel) for channel in channels))


async def kept(node: Node, channel: str) -> list[tuple[bytes, Position]]:
    """What a log has."""
    history = await node.broker.read_history(channel, ALL, LOG)
    epoch = history.top.epoch
    return [(bytes(one.data), Position(one.offset, epoch)) for one in history.publications]


async def test_channels_of_all_masters_are_one_system(node: Node, channels: list[str]) -> None:
    """Each is heard from its own master; presence, surveys and logs are found wherever they are."""
    await listening(node, channels)
    for channel in channels:
        assert (await node.broker.publish(channel, publication(1), LOG)).offset == 1
        await node.presence.add(channel, ClientInfo("42", "c1"))
        assert list(await node.presence.members(channel)) == ["c1"]
        assert len(await kept(node, channel)) == 1
    await node.handler.until_received(len(channels))
    assert [report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes] == ["n1"]
    assert node.engine.health.links == len(channels)


async def test_a_planned_failover_loses_nothing(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Under traffic: whatever was acknowledged is in the log, in the same epoch, and nothing failed."""
    channel = channels[0]
    await listening(node, channels)
    traffic = Traffic(node, channels)
    await traffic.until_acknowledged(channel)
    await asyncio.to_thread(cluster.failover, channel)
    await traffic.until_acknowledged(channel)
    await traffic.stop()
    assert traffic.failed == 0
    for each in channels:
        assert set(traffic.acknowledged[each]) <= set(await kept(node, each))
        assert len({position.epoch for _, position in traffic.acknowledged[each]}) == 1
    await node.handler.until(lambda: [channel] in node.handler.resubscribed)
    await until_ready(node)
    await hears(node, *channels)


async def test_a_killed_master_is_replaced_by_its_replica(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Meanwhile the node is in trouble and calls fail in time; then all goes on, and the channel resumes."""
    channel, *others = channels
    await listening(node, channels)
    await node.presence.add(channel, ClientInfo("42", "c1"))
    await node.broker.publish(channel, publication(1), LOG)
    killed = await asyncio.to_thread(cluster.kill_master_of, channel)
    trouble = await until_not_ready(node)
    assert f"{killed.port}" in trouble
    async with asyncio.timeout(SOON):
        while True:
            began_at = time.monotonic()
            try:
                await node.broker.publish(channel, publication(2), LOG)
                break
            except EngineError:
                assert time.monotonic() - began_at < SOON / 2
    await node.handler.until(lambda: [channel] in node.handler.resubscribed)
    await until_ready(node)
    await hears(node, channel, *others)
    assert list(await node.presence.members(channel)) == ["c1"]


async def test_what_waits_for_a_killed_master_goes_to_its_replica(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """In the order of the calls, and without an error: nothing of it had been sent."""
    channel = channels[0]
    await node.broker.subscribe(channel)
    top = await node.broker.publish(channel, publication(0), LOG)
    replica = cluster.replica_of(channel)
    cluster.until_replicated(channel)
    cluster.kill_master_of(channel)
    await until_not_ready(node)
    publishing = [asyncio.create_task(node.broker.publish(channel, publication(n), LOG)) for n in range(10)]
    await asyncio.sleep(TICK)
    with contextlib.suppress(ResponseError):  # it may have taken over by itself
        replica.command("CLUSTER", "FAILOVER", "TAKEOVER")
    positions = await asyncio.gather(*publishing)
    assert positions == [Position(offset, top.epoch) for offset in range(2, 12)]
    assert [data for data, _ in await kept(node, channel)][1:] == [b"%d" % number for number in range(10)]


async def test_a_log_whose_end_a_failover_lost_is_another_one(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """The replica did not have what was acknowledged: the epoch says so, whoever reads or publishes first."""
    channel = channels[0]
    await node.broker.subscribe(channel)
    await node.broker.publish(channel, publication(1), LOG)
    master, replica = cluster.master_of(channel), cluster.replica_of(channel)
    cluster.until_replicated(channel)
    replica.freeze()
    try:
        assert master.command("CLIENT", "KILL", "TYPE", "replica")
        top = await node.broker.publish(channel, publication(2), LOG)
        cluster.kill_master_of(channel)
    finally:
        replica.thaw()
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    await until_ready(node)
    assert top.offset == 2
    assert (await node.broker.read_history(channel, ALL, LOG)).top.epoch != top.epoch


async def test_a_slot_that_moves_takes_its_channels_along(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Under traffic: nothing acknowledged is lost, nothing fails, and it is heard from its new master."""
    channel = channels[0]
    await listening(node, channels)
    traffic = Traffic(node, channels)
    await traffic.until_acknowledged(channel)
    target = await asyncio.to_thread(cluster.migrate, channel)
    await traffic.until_acknowledged(channel)
    await traffic.stop()
    assert cluster.master_of(channel) is target
    assert traffic.failed == 0
    for each in channels:
        acknowledged = traffic.acknowledged[each]
        assert acknowledged == (await kept(node, each))[: len(acknowledged)]
    await node.handler.until(lambda: [channel] in node.handler.resubscribed)
    assert [channels[1]] not in node.handler.resubscribed
    await hears(node, *channels)
    assert not node.engine.unready_reason


async def test_a_slot_may_be_used_while_it_moves(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Whether its keys are still here or already there; what must wait for the end of it waits."""
    channel = channels[0]
    await node.broker.subscribe(channel)
    top = await node.broker.publish(channel, publication(1), LOG)
    with cluster.migrating(channel) as move:
        assert await node.broker.publish(channel, publication(2), LOG) == (2, top.epoch)
        await hears(node, channel)
        move()
        assert await node.broker.publish(channel, publication(3), LOG) == (3, top.epoch)
        assert (await node.broker.read_history(channel, ALL, LOG)).top.offset == 3
        waiting = asyncio.create_task(
            node.broker.publish(channel, NewPublication(Raw(b"4"), idempotency_key="k"), LOG)
        )
        entering = asyncio.create_task(node.presence.add(channel, ClientInfo("42", "c1")))
        await asyncio.sleep(TICK)
        leaving = asyncio.create_task(node.presence.remove(channel, "c1"))
        await asyncio.sleep(TICK)
        assert not waiting.done()
    assert await waiting == (4, top.epoch)
    await asyncio.gather(entering, leaving)
    assert await node.presence.members(channel) == {}
    await node.handler.until(lambda: [channel] in node.handler.resubscribed)


async def test_one_deaf_link_is_named_and_mended(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Only the channels of that master are resumed."""
    channel = channels[1]
    await listening(node, channels)
    master = cluster.master_of(channel)
    before = node.engine.health.links
    assert master.kill_pubsub_connections()
    await node.handler.until(lambda: node.handler.resubscribed == [[channel]])
    await until_ready(node)
    assert node.engine.health.links == before + 1
    await hears(node, *channels)


async def test_one_link_that_is_open_and_silent_is_replaced(
    running: Running, cluster: RedisCluster, channels: list[str]
) -> None:
    """Although all others are well: the node knows which one is deaf, and mends it."""
    channel = channels[0]
    master = cluster.master_of(channel)
    async with blackhole_running(master.port) as way:
        master.command("CONFIG", "SET", "cluster-announce-port", way.port)
        try:
            await asyncio.to_thread(cluster.until_known, way.port)
            async with running(cluster.url) as node:
                await listening(node, channels)
                way.drop_pubsub()
                way.drop_subscribers()  # else its replacement may be whole before anybody looks
                await until_unready_reason(node, f"{way.port}: its pub/sub connection is open but silent")
                way.pass_all()
                await node.broker.publish(channel, publication(1), LOG)
                await node.handler.until(lambda: node.handler.resubscribed == [[channel]])
                await until_ready(node)
                await hears(node, *channels)
        finally:
            master.command("CONFIG", "SET", "cluster-announce-port", 0)
            await asyncio.to_thread(cluster.until_known, master.port)


async def test_a_master_that_stands_still_is_named(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Its links are open and silent. Once it is back, or its replica has taken over, all is well again.

    The replica may be so quick that it is the one that cannot be used yet.
    """
    channel = channels[2]
    await listening(node, channels)
    master, replica = cluster.master_of(channel), cluster.replica_of(channel)
    master.freeze()
    try:
        trouble = await until_not_ready(node)
        assert f":{master.port}" in trouble or f":{replica.port}" in trouble
    finally:
        master.thaw()
    await until_ready(node)
    await hears(node, *channels)


async def test_nobody_leaves_over_a_failover(
    running: Running, node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Nodes outlive the master that has their leases, and each others' entries stay."""
    async with running(cluster.url, "n2") as other:
        await listening(node, channels)
        for channel in channels:
            await other.presence.add(channel, ClientInfo("42", "c2"), is_announced=True)
        for channel in channels:
            await asyncio.to_thread(cluster.failover, channel)
        await until_ready(node)
        await until_ready(other)
        assert sorted(report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes) == [
            "n1",
            "n2",
        ]
        for channel in channels:
            assert list(await node.presence.members(channel)) == ["c2"]
        assert not [push for _, push in node.handler.pushes if push.leave]


async def test_the_users_of_a_killed_node_leave_once(
    node: Node, cluster: RedisCluster, channels: list[str], prefix: str
) -> None:
    """Whichever masters have its channels, its lease, and the list of what it had."""
    await listening(node, channels)
    async with node_process_running(cluster.url, prefix, "apart") as apart:
        for channel in channels:
            await apart.add(channel, "c1", "42")
        apart.signal(signal.SIGKILL)
        await node.handler.until_pushed(len(channels))
    for channel in channels:
        assert await node.presence.members(channel) == {}
    assert sorted(channel for channel, push in node.handler.pushes if push.leave) == sorted(channels)
    assert node.engine.health.reaped_nodes <= 1


async def test_a_served_node_follows_a_failover(
    cluster: RedisCluster, channels: list[str], prefix: str, tmp_path: Path
) -> None:
    """Its clients stay connected and hear every publication that was acknowledged, once and in order."""
    channel = f"open:{channels[0]}"
    config = {**USUAL, "engine": {"url": cluster.url, "prefix": prefix}}
    with serving(config, tmp_path) as server:
        async with connected(server) as wire, Api(server) as api:
            await wire.call("subscribe", channel=channel)
            await api.publish_numbers(channel, range(1, 51))
            await asyncio.to_thread(cluster.failover, channel)
            await api.publish_numbers(channel, range(51, 101))
            assert await wire.offsets(channel, 100) == list(range(1, 101))
