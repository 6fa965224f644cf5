"""The router: nodes follow a Redis Cluster that changes, lose no stored data, and report problems."""

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

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tests.server.engine.redis.blackhole_proxy import blackhole_running
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.node_process import node_process_running
from tests.server.engine.redis.readiness import until_not_ready, until_ready, until_unready_reason
from tests.support.api import Api
from tests.support.configs import STANDARD
from tests.support.redis_cluster import RedisCluster
from tests.support.server import run_server
from tests.support.timing import SOON, STARTED, TICK
from tests.support.wire_client import connect_wire
from tocsin_server.engine.broker import IDEMPOTENCY_SECONDS, HistoryQuery, NewPublication
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.engine.redis.cluster import router
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import ClientInfo, Position

ALL = HistoryQuery(limit=-1)


@pytest.fixture
def cluster(redis_cluster: RedisCluster) -> Iterator[RedisCluster]:
    """The shared cluster, repaired before and after the test."""
    redis_cluster.repair()
    yield redis_cluster
    redis_cluster.repair()


@pytest.fixture
def channels(cluster: RedisCluster) -> list[str]:
    """One channel for each master."""
    return cluster.channels_on_all()


@pytest.fixture
async def node(running: Running, cluster: RedisCluster) -> AsyncIterator[Node]:
    """A node over the cluster."""
    async with running(cluster.url) as node:
        yield node


@pytest.fixture
def patient_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands wait for the cluster, however long it takes on a slow machine."""
    monkeypatch.setattr(router, "COMMAND_SECONDS", 10 * STARTED)
    defaults = router.Router.execute.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "seconds", 10 * STARTED)


class Traffic:
    """Publishes consecutive numbers in each channel, and records the acknowledged ones."""

    def __init__(self, node: Node, channels: list[str]) -> None:
        self._node = node
        self.acknowledged: dict[str, list[tuple[bytes, Position]]] = {channel: [] for channel in channels}
        self.failed = 0
        self._tasks = [asyncio.create_task(self._publish(channel)) for channel in channels]

    async def _publish(self, channel: str) -> None:
        for number in itertools.count():
            data = b"%d" % number
            try:
                position = await self._node.broker.publish(channel, NewPublication(Raw(data)), HISTORY)
            except EngineError:
                self.failed += 1
            else:
                self.acknowledged[channel].append((data, position))
            await asyncio.sleep(0.002)

    async def until_acknowledged(self, channel: str, more: int = 20) -> None:
        """Wait until so many more publications of a channel are acknowledged."""
        goal = len(self.acknowledged[channel]) + more
        async with asyncio.timeout(SOON):
            while len(self.acknowledged[channel]) < goal:  # noqa: ASYNC110 - there is no event to await
                await asyncio.sleep(TICK / 10)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def subscribed(node: Node, channels: list[str]) -> None:
    await asyncio.gather(*(node.broker.subscribe(channel) for channel in channels))


async def receives(node: Node, *channels: str) -> None:
    """Assert that the node receives new publications in these channels."""
    mark = b"%d" % time.monotonic_ns()
    for channel in channels:
        await node.broker.publish(channel, NewPublication(Raw(mark)), NO_HISTORY)
    await node.handler.until(lambda: all(mark in node.handler.payloads(channel) for channel in channels))


async def receives_in_the_end(node: Node, *channels: str) -> None:
    """The same for a slot that has moved. Until the node knows, a publication without history may be lost."""
    for _ in range(5):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOON / 5):
                await receives(node, *channels)
            return
    await receives(node, *channels)


async def kept(node: Node, channel: str) -> list[tuple[bytes, Position]]:
    """The publications that a history keeps."""
    history = await node.broker.read_history(channel, ALL, HISTORY)
    epoch = history.top.epoch
    return [(bytes(one.data), Position(one.offset, epoch)) for one in history.publications]


async def test_one_engine_covers_the_channels_of_all_masters(node: Node, channels: list[str]) -> None:
    """Each is received from its own master. Presence, surveys and histories work for all."""
    await subscribed(node, channels)
    for channel in channels:
        assert (await node.broker.publish(channel, publication(1), HISTORY)).offset == 1
        await node.presence.add(channel, ClientInfo("42", "c1"))
        assert list(await node.presence.members(channel)) == ["c1"]
        assert len(await kept(node, channel)) == 1
    await node.handler.until_received(len(channels))
    assert [report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes] == ["n1"]
    assert node.engine.health.links == len(channels)


async def test_a_planned_failover_loses_nothing(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Under traffic: each acknowledged publication is stored in the same epoch, and no publish fails."""
    channel = channels[0]
    await subscribed(node, channels)
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
    await receives(node, *channels)


async def test_a_killed_master_is_replaced_by_its_replica(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Until then the node is not ready and commands fail in time. Then the channel is resubscribed."""
    channel, *others = channels
    await subscribed(node, channels)
    await node.presence.add(channel, ClientInfo("42", "c1"))
    await node.broker.publish(channel, publication(1), HISTORY)
    killed = await asyncio.to_thread(cluster.kill_master_of, channel)
    reason = await until_not_ready(node)
    assert f"{killed.port}" in reason
    async with asyncio.timeout(SOON):
        while True:
            began_at = time.monotonic()
            try:
                await node.broker.publish(channel, publication(2), HISTORY)
                break
            except EngineError:
                assert time.monotonic() - began_at < SOON / 2
    await node.handler.until(lambda: [channel] in node.handler.resubscribed)
    await until_ready(node)
    await receives(node, channel, *others)
    assert list(await node.presence.members(channel)) == ["c1"]


@pytest.mark.usefixtures("patient_commands")
async def test_queued_commands_of_a_killed_master_go_to_its_replica(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """In their order and without an error, because none of them had been sent."""
    channel = channels[0]
    await node.broker.subscribe(channel)
    top = await node.broker.publish(channel, publication(0), HISTORY)
    replica = cluster.replica_of(channel)
    cluster.until_replicated(channel)
    cluster.kill_master_of(channel)
    await until_not_ready(node)
    publishing = [
        asyncio.create_task(node.broker.publish(channel, publication(n), HISTORY)) for n in range(10)
    ]
    await asyncio.sleep(TICK)
    with contextlib.suppress(ResponseError):  # it may have taken over already
        replica.command("CLUSTER", "FAILOVER", "TAKEOVER")
    positions = await asyncio.gather(*publishing)
    assert positions == [Position(offset, top.epoch) for offset in range(2, 12)]
    assert [data for data, _ in await kept(node, channel)][1:] == [b"%d" % number for number in range(10)]


async def test_a_history_that_lost_its_end_in_a_failover_gets_another_epoch(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """The replica lacks an acknowledged publication."""
    channel = channels[0]
    await node.broker.subscribe(channel)
    await node.broker.publish(channel, publication(1), HISTORY)
    master, replica = cluster.master_of(channel), cluster.replica_of(channel)
    cluster.until_replicated(channel)
    replica.freeze()
    try:
        assert master.command("CLIENT", "KILL", "TYPE", "replica")
        top = await node.broker.publish(channel, publication(2), HISTORY)
        cluster.kill_master_of(channel)
    finally:
        replica.thaw()
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    await until_ready(node)
    assert top.offset == 2
    assert (await node.broker.read_history(channel, ALL, HISTORY)).top.epoch != top.epoch


async def test_the_channels_of_a_moved_slot_move_with_it(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Under traffic: no publication is lost, no publish fails, and the new master delivers."""
    channel = channels[0]
    await subscribed(node, channels)
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
    await receives_in_the_end(node, *channels)
    assert not node.engine.unready_reason


@pytest.mark.usefixtures("patient_commands")
async def test_a_slot_can_be_used_while_it_moves(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Whether its keys have moved or not. Commands that need the end of the move wait for it."""
    channel = channels[0]
    await node.broker.subscribe(channel)
    top = await node.broker.publish(channel, publication(1), HISTORY)
    with cluster.migrating(channel) as move:
        assert await node.broker.publish(channel, publication(2), HISTORY) == Position(2, top.epoch)
        await receives(node, channel)
        move()
        assert await node.broker.publish(channel, publication(3), HISTORY) == Position(3, top.epoch)
        assert (await node.broker.read_history(channel, ALL, HISTORY)).top.offset == 3
        blocked = asyncio.create_task(
            node.broker.publish(channel, NewPublication(Raw(b"4"), idempotency_key="k"), HISTORY)
        )
        adding = asyncio.create_task(node.presence.add(channel, ClientInfo("42", "c1")))
        await asyncio.sleep(TICK)
        removing = asyncio.create_task(node.presence.remove(channel, "c1"))
        await asyncio.sleep(TICK)
        assert not blocked.done()
    assert await blocked == Position(4, top.epoch)
    await asyncio.gather(adding, removing)
    assert await node.presence.members(channel) == {}
    await node.handler.until(lambda: [channel] in node.handler.resubscribed)


async def test_idempotency_keys_expire_while_their_slot_moves(
    node: Node, cluster: RedisCluster, channels: list[str], prefix: str
) -> None:
    """Those that have moved, those that have not, and those that do not exist. None waits for the end."""
    channel = channels[0]
    for key in ("k1", "k2", "k3"):
        draft = NewPublication(Raw(b"1"), idempotency_key=key, idempotency_seconds=100 * IDEMPOTENCY_SECONDS)
        await node.broker.publish(channel, draft, NO_HISTORY)
    with cluster.migrating(channel) as move:
        await node.broker.expire_keys([(channel, "k1"), (channel, "none")])
        move()
        await node.broker.expire_keys([(channel, "k2"), (channel, "none")])
    await node.broker.expire_keys([(channel, "k3"), (channels[1], "none")])
    for key in ("k1", "k2", "k3"):
        left = cluster.master_of(channel).command("PTTL", Keys(prefix).idempotency(channel, key))
        assert 0 < left <= 1000 * IDEMPOTENCY_SECONDS


async def test_a_broken_pubsub_connection_affects_one_shard_only(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Only the channels of its master are resubscribed."""
    channel = channels[1]
    await subscribed(node, channels)
    master = cluster.master_of(channel)
    before = node.engine.health.links
    assert master.kill_pubsub_connections()
    await node.handler.until(lambda: node.handler.resubscribed == [[channel]])
    await until_ready(node)
    assert node.engine.health.links == before + 1
    await receives(node, *channels)


@pytest.mark.usefixtures("short_timeouts")
async def test_a_deaf_pubsub_connection_of_one_shard_is_replaced(
    running: Running, cluster: RedisCluster, channels: list[str]
) -> None:
    """The unready reason names its server."""
    channel = channels[0]
    master = cluster.master_of(channel)
    async with blackhole_running(master.port) as proxy:
        master.command("CONFIG", "SET", "cluster-announce-port", proxy.port)
        try:
            await asyncio.to_thread(cluster.until_known, proxy.port)
            async with running(cluster.url) as node:
                await subscribed(node, channels)
                proxy.drop_pubsub()
                proxy.drop_subscribers()  # otherwise the new connection may be ready before the test polls
                await until_unready_reason(node, f"{proxy.port}: its pub/sub connection is open but silent")
                proxy.pass_all()
                await node.broker.publish(channel, publication(1), HISTORY)
                await node.handler.until(lambda: node.handler.resubscribed == [[channel]])
                await until_ready(node)
                await receives(node, *channels)
        finally:
            master.command("CONFIG", "SET", "cluster-announce-port", 0)
            await asyncio.to_thread(cluster.until_known, master.port)


@pytest.mark.usefixtures("short_timeouts")
async def test_the_unready_reason_names_a_frozen_master(
    node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """When it continues, or its replica has taken over, the node is ready again.

    The replica may take over so quickly that the reason names it.
    """
    channel = channels[2]
    await subscribed(node, channels)
    master, replica = cluster.master_of(channel), cluster.replica_of(channel)
    master.freeze()
    try:
        reason = await until_not_ready(node)
        assert f":{master.port}" in reason or f":{replica.port}" in reason
    finally:
        master.thaw()
    await until_ready(node)
    await receives(node, *channels)


async def test_a_failover_causes_no_leaves(
    running: Running, node: Node, cluster: RedisCluster, channels: list[str]
) -> None:
    """Leases and presence entries survive the failover of every master."""
    async with running(cluster.url, "n2") as other:
        await subscribed(node, channels)
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


@pytest.mark.usefixtures("short_leases")
async def test_the_users_of_a_killed_node_leave_once(
    node: Node, cluster: RedisCluster, channels: list[str], prefix: str
) -> None:
    """Although its channels, its lease and its list of channels are on different masters."""
    await subscribed(node, channels)
    async with node_process_running(cluster.url, prefix, "other") as node_process:
        for channel in channels:
            await node_process.add(channel, "c1", "42")
        node_process.signal(signal.SIGKILL)
        await node.handler.until_pushed(len(channels))
    for channel in channels:
        assert await node.presence.members(channel) == {}
    assert sorted(channel for channel, push in node.handler.pushes if push.leave) == sorted(channels)
    assert node.engine.health.reaped_nodes <= 1


async def test_a_served_node_follows_a_failover(
    cluster: RedisCluster, channels: list[str], prefix: str, tmp_path: Path
) -> None:
    """Its clients stay connected and get every acknowledged publication, once and in order."""
    channel = f"open:{channels[0]}"
    config = {**STANDARD, "engine": {"url": cluster.url, "prefix": prefix}}
    with run_server(config, tmp_path) as server:
        async with connect_wire(server) as wire, Api(server) as api:
            await wire.call("subscribe", channel=channel)
            await api.publish_numbers(channel, range(1, 51))
            await asyncio.to_thread(cluster.failover, channel)
            await api.publish_numbers(channel, range(51, 101))
            assert await wire.offsets(channel, 100) == list(range(1, 101))
