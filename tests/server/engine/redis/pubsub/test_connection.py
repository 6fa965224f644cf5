"""Faults of the pub/sub connection: each is detected, and the interrupted channels are resubscribed."""

import asyncio
from random import Random

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tests.server.engine.recording_handler import ReceivedPublication
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.readiness import (
    RecordingConnector,
    until_not_ready,
    until_ready,
    until_unready_reason,
)
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET, SOON, STARTED
from tocsin_server.engine.broker import TOP_ONLY, NewPublication
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connector import Backoff
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.membership.failure_detector import DEAD
from tocsin_server.engine.redis.pubsub.connection import PubSubConnection
from tocsin_server.engine.redis.pubsub.subscriptions import MAX_UNCONFIRMED_NAMES
from tocsin_server.errors import EngineError, EngineFull
from tocsin_server.protocol.messages import ClientInfo, Publication


async def subscribed(node: Node, *channels: str) -> None:
    await asyncio.gather(*(node.broker.subscribe(channel) for channel in channels))


async def renewed(node: Node, times: int) -> None:
    """Wait until the node has renewed its lease so many times. After a long stall it has another lease."""
    assert isinstance(node.engine, RedisEngine)
    commands, keys = node.engine._deployment.commands, node.engine._keys
    counts: set[bytes] = set()
    async with asyncio.timeout(STARTED):
        while len(counts) <= times:
            counts |= set(await commands.execute("HVALS", keys.nodes)) - {DEAD}
            await asyncio.sleep(QUIET / 10)


async def still_receives(node: Node, *channels: str) -> None:
    """Assert that the node receives new publications in these channels, each once."""
    for channel in channels:
        await node.broker.publish(channel, publication(77), NO_HISTORY)
    await node.catch_up()
    for channel in channels:
        assert node.handler.payloads(channel).count(b"77") == 1


async def test_a_killed_connection_is_replaced(node: Node, redis_server: RedisServer) -> None:
    """All channels are resubscribed, and reported once."""
    await subscribed(node, "a", "b", "c")
    await node.broker.unsubscribe("c")
    assert redis_server.kill_pubsub_connections()
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    assert node.handler.resubscribed == [["a", "b"]]
    await until_ready(node)
    await still_receives(node, "a", "b")


async def test_subscriptions_wait_for_the_next_connection(node: Node, redis_server: RedisServer) -> None:
    """Only channels that were subscribed before are reported as resubscribed."""
    await subscribed(node, "a", "b")
    redis_server.kill_pubsub_connections()
    await asyncio.gather(node.broker.subscribe("c"), node.broker.unsubscribe("b"))
    await until_ready(node)
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    assert node.handler.resubscribed in ([["a"]], [["a", "b"]])
    await still_receives(node, "a", "c")


@pytest.mark.usefixtures("short_timeouts")
async def test_a_deaf_connection_is_replaced(running: Running, proxy: BlackholeProxy) -> None:
    """Until then the node is not ready."""
    async with running(proxy.url) as node:
        await subscribed(node, "a")
        proxy.drop_pubsub()
        proxy.drop_subscribers()  # otherwise the new connection may be ready before the test polls
        await until_unready_reason(node, "silent")
        proxy.pass_all()
        await node.broker.publish("a", publication(1), HISTORY)
        await node.handler.until(lambda: node.handler.resubscribed == [["a"]])
        await until_ready(node)
        await still_receives(node, "a")


@pytest.mark.parametrize("is_broken_first", [True, False])
async def test_a_connection_that_breaks_while_it_is_cancelled_ends(
    redis_server: RedisServer, *, is_broken_first: bool
) -> None:
    """Otherwise the stop of the engine would wait for ever."""
    connector = RecordingConnector(parse_address(redis_server.url), "test")
    pubsub = PubSubConnection(connector, Backoff(Random()), lambda _: None)
    running = asyncio.create_task(pubsub.run())
    async with asyncio.timeout(SOON):
        await pubsub.subscribed.wait()
        await asyncio.sleep(0)
        if is_broken_first:
            connector.connection.fail(ConnectionResetError())
            running.cancel()
        else:
            running.cancel()
            connector.connection.fail(ConnectionResetError())
        with pytest.raises(asyncio.CancelledError):
            await running


@pytest.mark.usefixtures("short_timeouts")
async def test_a_connection_that_never_confirms_is_replaced(
    running: Running, proxy: BlackholeProxy, redis_server: RedisServer
) -> None:
    """It sends no probe yet, so no probe detects it."""
    async with running(proxy.url) as node:
        await subscribed(node, "a")
        proxy.drop_subscribers()
        redis_server.kill_pubsub_connections()
        await until_unready_reason(node, "silent")
        proxy.pass_all()
        await until_ready(node)
        assert node.handler.resubscribed == [["a"]]
        await still_receives(node, "a")


@pytest.mark.usefixtures("short_timeouts")
async def test_a_node_that_is_cut_off_is_not_ready(running: Running, proxy: BlackholeProxy) -> None:
    """All connections are open and silent. Commands fail in time, and the node recovers."""
    async with running(proxy.url) as node:
        await subscribed(node, "a")
        proxy.drop_all()
        publishing = asyncio.create_task(node.broker.publish("a", publication(1), HISTORY))
        assert (await until_not_ready(node)).endswith(".")
        async with asyncio.timeout(SOON):
            with pytest.raises(EngineError):
                await publishing
        proxy.pass_all()
        await until_ready(node)
        await node.handler.until(lambda: node.handler.resubscribed == [["a"]])
        await still_receives(node, "a")


@pytest.mark.usefixtures("short_leases")
async def test_a_redis_that_becomes_a_replica_is_detected(
    running: Running, persistent_redis: RedisServer, redis_server: RedisServer
) -> None:
    """It closes no connection and delivers messages, but accepts no writes."""
    async with running(persistent_redis.url) as node:
        await subscribed(node, "a")
        persistent_redis.command("REPLICAOF", "127.0.0.1", redis_server.port)
        await until_unready_reason(node, "replica")
        with pytest.raises(EngineError):
            await node.broker.publish("a", publication(1), HISTORY)
        persistent_redis.command("REPLICAOF", "NO", "ONE")
        await until_ready(node)
        await still_receives(node, "a")


@pytest.mark.usefixtures("short_leases")
async def test_a_node_stays_ready_while_redis_is_full(
    running: Running, persistent_redis: RedisServer
) -> None:
    """It renews its lease, reads and delivers. Only what takes memory of Redis is refused."""
    async with running(persistent_redis.url) as node:
        await subscribed(node, "a")
        await node.presence.add("a", ClientInfo("42", "c1"))
        await node.broker.read_history("empty", TOP_ONLY, HISTORY)
        persistent_redis.command("CONFIG", "SET", "maxmemory", 1)
        for call in (
            node.broker.publish("a", publication(1), HISTORY),
            node.presence.add("a", ClientInfo("43", "c2")),
        ):
            with pytest.raises(EngineFull):
                await call
        assert (await node.broker.read_history("empty", TOP_ONLY, HISTORY)).top.epoch
        await renewed(node, 3)
        await still_receives(node, "a")
        assert not node.engine.unready_reason
        async with running(persistent_redis.url, "n2") as other:
            assert list(await other.presence.members("a")) == ["c1"]
        await node.presence.remove("a", "c1")
        persistent_redis.command("CONFIG", "SET", "maxmemory", 0)
        assert (await node.broker.publish("a", publication(1), HISTORY)).offset == 1


@pytest.mark.usefixtures("short_timeouts")
async def test_a_node_recovers_from_a_frozen_redis(running: Running, volatile_redis: RedisServer) -> None:
    """Redis continues with its data."""
    async with running(volatile_redis.url) as node:
        await subscribed(node, "a")
        position = await node.broker.publish("a", publication(1), HISTORY)
        volatile_redis.freeze()
        await until_not_ready(node)
        volatile_redis.thaw()
        await until_ready(node)
        assert (await node.broker.publish("a", publication(2), HISTORY)).epoch == position.epoch
        await still_receives(node, "a")


async def test_a_full_output_buffer_breaks_the_connection(
    running: Running, volatile_redis: RedisServer
) -> None:
    """Redis disconnects a client that reads too slowly. The dropped publications are in the history."""
    async with running(volatile_redis.url) as node:
        await subscribed(node, "a")
        volatile_redis.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 0 0")
        payload = b'"%s"' % (b"x" * 1_000_000)
        position = await node.broker.publish("a", NewPublication(Raw(payload)), HISTORY)
        await node.handler.until(lambda: node.handler.resubscribed == [["a"]])
        assert position.offset == 1
        assert not node.handler.received


async def test_a_handler_that_raises_costs_one_connection(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler never raises. If it does, the node still does not become deaf."""
    await subscribed(node, "a")

    def fail(channel: str, *_: object, **__: object) -> None:
        monkeypatch.undo()
        raise KeyError(channel)

    monkeypatch.setattr(node.handler, "on_publication", fail)
    await node.broker.publish("a", publication(1), NO_HISTORY)
    await node.handler.until(lambda: node.handler.resubscribed == [["a"]])
    await until_ready(node)
    await still_receives(node, "a")


@pytest.mark.parametrize(
    "message", [b"", b"9p0 1 epoch\n", b"1p0 1 epoch\n\xc1", b"1p\n", b"1j\n\xc0", b"1x"]
)
async def test_a_malformed_message_is_dropped(
    node: Node, redis_server: RedisServer, prefix: str, message: bytes
) -> None:
    """As from a node with another format version: the next message is received."""
    await subscribed(node, "a")
    redis_server.command("PUBLISH", f"{prefix}:{{a}}", message)
    await node.broker.publish("a", publication(1), NO_HISTORY)
    await node.handler.until_received(1)
    assert node.handler.received == [ReceivedPublication("a", Publication(Raw(b"1")), "")]
    assert not node.handler.resubscribed


async def test_many_channels_take_few_commands(node: Node, redis_server: RedisServer) -> None:
    """Subscriptions that are made together are sent together."""
    redis_server.command("CONFIG", "RESETSTAT")
    await subscribed(node, *(f"c{number}" for number in range(1000)))
    stats = redis_server.client.info("commandstats")
    assert isinstance(stats, dict)
    assert stats["cmdstat_subscribe"]["calls"] <= 10
    async with asyncio.timeout(SOON):
        await asyncio.gather(*(node.broker.unsubscribe(f"c{number}") for number in range(1000)))


async def test_more_channels_than_may_be_in_flight_are_all_subscribed(
    node: Node, redis_server: RedisServer
) -> None:
    """At first, and again after the connection broke."""
    channels = [f"c{number}" for number in range(2 * MAX_UNCONFIRMED_NAMES)]
    await subscribed(node, *channels)
    redis_server.kill_pubsub_connections()
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    assert sorted(node.handler.resubscribed[0]) == sorted(channels)
    await until_ready(node)
    await still_receives(node, channels[0], channels[-1])


async def test_a_node_subscribes_only_to_its_own_names(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Its probe, what other nodes send it, revocations, and the channels that it wants."""
    await subscribed(node, "a", "b")
    await node.broker.unsubscribe("b")
    names_in_redis = redis_server.command("PUBSUB", "CHANNELS", f"{prefix}:*")
    of_node = [b"node:n1:" + name for name in (b"answers", b"canary", b"commands", b"receipts")]
    names = [b"control", *of_node, b"revocations:{all}", b"{a}"]
    assert sorted(names_in_redis) == sorted(prefix.encode() + b":" + name for name in names)
