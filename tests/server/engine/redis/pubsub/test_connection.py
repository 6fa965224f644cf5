"""The link's faults: each is noticed, the link replaced, and the audience told what it did not hear."""

import asyncio
from random import Random

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import LOG, NO_LOG, Node, publication
from tests.server.engine.recording_handler import ReceivedPublication
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.engine.redis.waiting import (
    RecordingConnector,
    until_not_ready,
    until_ready,
    until_unready_reason,
)
from tests.support.timing import SOON
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.connections.connector import Backoff
from tocsin_server.engine.redis.pubsub.connection import PubSubConnection
from tocsin_server.engine.redis.pubsub.subscriptions import MAX_UNCONFIRMED_NAMES
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import Publication


async def listening(node: Node, *channels: str) -> None:
    await asyncio.gather(*(node.broker.subscribe(channel) for channel in channels))


async def still_hears(node: Node, *channels: str) -> None:
    """Everything that is published from now on."""
    for channel in channels:
        await node.broker.publish(channel, publication(77), NO_LOG)
    await node.catch_up()
    for channel in channels:
        assert node.handler.payloads(channel).count(b"77") == 1


async def test_a_killed_link_is_replaced(node: Node, redis_server: RedisServer) -> None:
    """All channels are heard again, and the audience is told once, of those it listens to."""
    await listening(node, "a", "b", "c")
    await node.broker.unsubscribe("c")
    assert redis_server.kill_pubsub_connections()
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    assert node.handler.resubscribed == [["a", "b"]]
    await until_ready(node)
    await still_hears(node, "a", "b")


async def test_what_is_wanted_while_the_link_is_broken_is_heard_once_it_is_whole(
    node: Node, redis_server: RedisServer
) -> None:
    """Whoever asked waits; the audience is told only of what it heard before."""
    await listening(node, "a", "b")
    redis_server.kill_pubsub_connections()
    await asyncio.gather(node.broker.subscribe("c"), node.broker.unsubscribe("b"))
    await until_ready(node)
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    assert node.handler.resubscribed in ([["a"]], [["a", "b"]])
    await still_hears(node, "a", "c")


async def test_a_link_that_is_open_and_silent_is_replaced(
    running: Running, swallower: BlackholeProxy
) -> None:
    """The node knows that it is deaf; soon after it may be heard again it is not."""
    async with running(swallower.url) as node:
        await listening(node, "a")
        swallower.drop_pubsub()
        swallower.drop_subscribers()  # else its replacement may be whole before anybody looks
        await until_unready_reason(node, "silent")
        swallower.pass_all()
        await node.broker.publish("a", publication(1), LOG)
        await node.handler.until(lambda: node.handler.resubscribed == [["a"]])
        await until_ready(node)
        await still_hears(node, "a")


@pytest.mark.parametrize("is_broken_first", [True, False])
async def test_a_link_that_breaks_while_it_is_stopped_stops(
    redis_server: RedisServer, *, is_broken_first: bool
) -> None:
    """Else whoever stops the engine would wait for ever."""
    dialler = RecordingConnector(parse_address(redis_server.url), "test")
    link = PubSubConnection(dialler, Backoff(Random()), lambda _: None)
    running = asyncio.create_task(link.run())
    async with asyncio.timeout(SOON):
        await link.subscribed.wait()
        await asyncio.sleep(0)
        if is_broken_first:
            dialler.connection.fail(ConnectionResetError())
            running.cancel()
        else:
            running.cancel()
            dialler.connection.fail(ConnectionResetError())
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_link_that_is_silent_from_the_beginning_is_replaced(
    running: Running, swallower: BlackholeProxy, redis_server: RedisServer
) -> None:
    """Nothing confirms what it asks for, so no canary can tell."""
    async with running(swallower.url) as node:
        await listening(node, "a")
        swallower.drop_subscribers()
        redis_server.kill_pubsub_connections()
        await until_unready_reason(node, "silent")
        swallower.pass_all()
        await until_ready(node)
        assert node.handler.resubscribed == [["a"]]
        await still_hears(node, "a")


async def test_a_node_that_is_cut_off_knows_it(running: Running, swallower: BlackholeProxy) -> None:
    """Connections stay open, nothing comes through: calls fail in time, and all is well once it is mended."""
    async with running(swallower.url) as node:
        await listening(node, "a")
        swallower.drop_all()
        publishing = asyncio.create_task(node.broker.publish("a", publication(1), LOG))
        assert (await until_not_ready(node)).endswith(".")
        async with asyncio.timeout(SOON):
            with pytest.raises(EngineError):
                await publishing
        swallower.pass_all()
        await until_ready(node)
        await node.handler.until(lambda: node.handler.resubscribed == [["a"]])
        await still_hears(node, "a")


async def test_a_redis_that_becomes_a_replica_is_noticed(
    running: Running, lasting_redis: RedisServer, redis_server: RedisServer
) -> None:
    """It hangs up on nobody, announces on, and takes no writes. Another one may have the address by then."""
    async with running(lasting_redis.url) as node:
        await listening(node, "a")
        lasting_redis.command("REPLICAOF", "127.0.0.1", redis_server.port)
        await until_unready_reason(node, "replica")
        with pytest.raises(EngineError):
            await node.broker.publish("a", publication(1), LOG)
        lasting_redis.command("REPLICAOF", "NO", "ONE")
        await until_ready(node)
        await still_hears(node, "a")


async def test_a_redis_that_is_full_is_noticed(running: Running, lasting_redis: RedisServer) -> None:
    """Announcements go on, and no write."""
    async with running(lasting_redis.url) as node:
        await listening(node, "a")
        lasting_redis.command("CONFIG", "SET", "maxmemory", 1)
        await until_unready_reason(node, "accepts no writes")
        assert "maxmemory" in node.engine.unready_reason
        with pytest.raises(EngineError):
            await node.broker.publish("a", publication(1), LOG)
        lasting_redis.command("CONFIG", "SET", "maxmemory", 0)
        await until_ready(node)
        await still_hears(node, "a")


async def test_a_redis_that_stands_still_harms_nobody(running: Running, fleeting_redis: RedisServer) -> None:
    """It comes back with what it knew, and everything goes on."""
    async with running(fleeting_redis.url) as node:
        await listening(node, "a")
        position = await node.broker.publish("a", publication(1), LOG)
        fleeting_redis.freeze()
        await until_not_ready(node)
        fleeting_redis.thaw()
        await until_ready(node)
        assert (await node.broker.publish("a", publication(2), LOG)).epoch == position.epoch
        await still_hears(node, "a")


async def test_a_full_output_buffer_is_a_broken_link(running: Running, fleeting_redis: RedisServer) -> None:
    """Redis cuts off who reads too slowly; what it dropped is in the log."""
    async with running(fleeting_redis.url) as node:
        await listening(node, "a")
        fleeting_redis.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 0 0")
        payload = b'"%s"' % (b"x" * 1_000_000)
        position = await node.broker.publish("a", NewPublication(Raw(payload)), LOG)
        await node.handler.until(lambda: node.handler.resubscribed == [["a"]])
        assert position.offset == 1
        assert not node.handler.received


async def test_a_listener_that_dies_of_a_mistake_is_replaced_and_said(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An audience never raises; if it does nevertheless, the node does not go deaf over it."""
    await listening(node, "a")

    def stumble(channel: str, publication: Publication, epoch: str, published_at: float) -> None:
        monkeypatch.undo()
        raise KeyError(channel)

    monkeypatch.setattr(node.handler, "on_publication", stumble)
    await node.broker.publish("a", publication(1), NO_LOG)
    await node.handler.until(lambda: node.handler.resubscribed == [["a"]])
    await until_ready(node)
    await still_hears(node, "a")


@pytest.mark.parametrize(
    "message", [b"", b"9p0 1 epoch\n", b"1p0 1 epoch\n\xc1", b"1p\n", b"1j\n\xc0", b"1x"]
)
async def test_what_is_not_understood_is_dropped(
    node: Node, redis_server: RedisServer, prefix: str, message: bytes
) -> None:
    """As from a node of another version: nothing breaks, and the next message is heard."""
    await listening(node, "a")
    redis_server.command("PUBLISH", f"{prefix}:{{a}}", message)
    await node.broker.publish("a", publication(1), NO_LOG)
    await node.handler.until_received(1)
    assert node.handler.received == [ReceivedPublication("a", Publication(Raw(b"1")), "")]
    assert not node.handler.resubscribed


async def test_many_channels_take_few_commands(node: Node, redis_server: RedisServer) -> None:
    """Subscriptions that are asked for together leave together."""
    redis_server.command("CONFIG", "RESETSTAT")
    await listening(node, *(f"c{number}" for number in range(1000)))
    stats = redis_server.client.info("commandstats")
    assert isinstance(stats, dict)
    assert stats["cmdstat_subscribe"]["calls"] <= 10
    async with asyncio.timeout(SOON):
        await asyncio.gather(*(node.broker.unsubscribe(f"c{number}") for number in range(1000)))


async def test_more_channels_than_are_asked_for_at_once_are_all_heard(
    node: Node, redis_server: RedisServer
) -> None:
    """Wanted together, and again after the link broke."""
    channels = [f"c{number}" for number in range(2 * MAX_UNCONFIRMED_NAMES)]
    await listening(node, *channels)
    redis_server.kill_pubsub_connections()
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    assert sorted(node.handler.resubscribed[0]) == sorted(channels)
    await until_ready(node)
    await still_hears(node, channels[0], channels[-1])


async def test_a_node_hears_only_what_it_listens_to(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Nothing else reaches it: its own canary, what concerns all nodes, and the channels it wants."""
    await listening(node, "a", "b")
    await node.broker.unsubscribe("b")
    heard = redis_server.command("PUBSUB", "CHANNELS", f"{prefix}:*")
    names = [b"control", b"node:n1:answers", b"node:n1:canary", b"{a}"]
    assert sorted(heard) == sorted(prefix.encode() + b":" + name for name in names)
