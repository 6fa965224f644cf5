"""The Redis broker: histories continue after a restart, and one that lost its end gets another epoch."""

import asyncio
import re
from typing import Any

import pytest

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.readiness import until_ready
from tests.server.engine.redis.redis_server import RedisServer
from tocsin_server import loop_turns
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.engine.redis import broker as broker_module
from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.broker import ReadArguments
from tocsin_server.engine.redis.membership.lease import Lease
from tocsin_server.engine.redis.publish_call import ARGUMENTS
from tocsin_server.protocol.messages import ClientInfo, Position, Publication

ALL = HistoryQuery(limit=-1)


def named_arguments(script: scripts.Script) -> tuple[str, ...]:
    """The names that a script gives its arguments."""
    (names,) = re.findall(r"^local ([^()]*?) = unpack\(ARGV\)$", script.text, re.MULTILINE | re.DOTALL)
    return tuple(re.split(r",\s+", names))


def test_scripts_name_their_arguments_in_the_order_of_the_tuples() -> None:
    """The order is written in both places, because a script gets its arguments by position."""
    assert named_arguments(scripts.PUBLISH) == ARGUMENTS
    assert named_arguments(scripts.HISTORY_READ) == ReadArguments._fields


async def restarted(node: Node, server: RedisServer) -> None:
    """Kill Redis, start it again, and wait until the node has recovered."""
    server.stop()
    server.start()
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    await until_ready(node)


async def follow(node: Node) -> None:
    """Subscribe and read the top, as a node does for clients with positions."""
    await node.broker.subscribe("news")
    await node.broker.read_history("news", TOP_ONLY, HISTORY)


async def publish_many(node: Node, count: int) -> Position:
    for number in range(1, count + 1):
        position = await node.broker.publish("news", publication(number), HISTORY)
    return position


async def test_a_large_history_is_decoded_in_several_loop_turns(
    running: Running, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other code runs in between. Without a limit in time, each turn decodes ITEMS_AT_ONCE publications."""
    monkeypatch.setattr(loop_turns, "TURN_SECONDS", 0)
    monkeypatch.setattr(loop_turns, "ITEMS_AT_ONCE", 2)
    monkeypatch.setattr(loop_turns, "FEW_ITEMS", 1)
    turns_seen: list[int] = []
    turn = 0

    def decode(entry: Any) -> Publication:
        turns_seen.append(turn)
        return decode_entry(entry)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    decode_entry = broker_module._publication
    monkeypatch.setattr(broker_module, "_publication", decode)
    async with running(redis_server.url) as node:
        await publish_many(node, 7)
        counting = asyncio.create_task(count_turns())
        history = await node.broker.read_history("news", ALL, HISTORY)
        counting.cancel()
    assert [each.offset for each in history.publications] == list(range(1, 8))
    assert [turns_seen.count(seen) for seen in sorted(set(turns_seen))] == [2, 2, 2, 1]


async def test_histories_continue_after_a_restart_with_data(
    running: Running, persistent_redis: RedisServer
) -> None:
    """Same epoch, next offset, nothing missing. Presence continues, too."""
    async with running(persistent_redis.url) as node:
        await node.broker.subscribe("news")
        await node.presence.add("news", ClientInfo("42", "c1"))
        top = await publish_many(node, 3)
        await restarted(node, persistent_redis)
        history = await node.broker.read_history("news", ALL, HISTORY)
        assert history.top == top
        assert len(history.publications) == 3
        assert await node.broker.publish("news", publication(4), HISTORY) == Position(4, top.epoch)
        assert list(await node.presence.members("news")) == ["c1"]


@pytest.mark.usefixtures("short_leases")
async def test_histories_start_over_after_a_restart_without_data(
    running: Running, volatile_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another epoch. The node writes its presence entries again."""
    move_entries = Lease._move_entries

    async def move_later(lease: Lease) -> None:
        """The node then receives the joins of its own entries."""
        await node.handler.until(lambda: bool(node.handler.resubscribed))
        await move_entries(lease)

    monkeypatch.setattr(Lease, "_move_entries", move_later)
    async with running(volatile_redis.url) as node:
        await node.broker.subscribe("news")
        await node.presence.add("news", ClientInfo("42", "c1"), is_announced=True)
        top = await publish_many(node, 3)
        await restarted(node, volatile_redis)
        history = await node.broker.read_history("news", ALL, HISTORY)
        assert history.top.offset == 0
        assert history.top.epoch != top.epoch
        await node.handler.until_pushed(1)
        assert node.handler.pushes[0][1].join is not None
        assert list(await node.presence.members("news")) == ["c1"]
        assert [report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes] == ["n1"]


def roll_back(server: RedisServer, prefix: str, offset: int) -> None:
    """Remove the end of the history of `news`, as a failover to a late replica does."""
    history = f"{prefix}:{{news}}:log"
    for identity, _ in server.command("XRANGE", history, offset + 1, "+"):
        server.command("XDEL", history, identity)
    server.command("XSETID", history, f"{offset}-{2**64 - 1}")
    server.command("HSET", f"{prefix}:{{news}}:meta", "offset", offset)


def replace_end(server: RedisServer, prefix: str) -> None:
    """Replace the last publication with another one, as after a failover."""
    history = f"{prefix}:{{news}}:log"
    ((identity, fields),) = server.command("XREVRANGE", history, "+", "-", "COUNT", 1)
    offset, stamp = map(int, identity.split(b"-"))
    server.command("XDEL", history, identity)
    server.command("XADD", history, f"{offset}-{stamp + 1}", "1", fields[b"1"])


async def test_a_read_detects_that_a_history_was_rolled_back(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """The node has seen a newer position, so the history starts over, for every node."""
    await node.broker.subscribe("news")
    top = await publish_many(node, 5)
    roll_back(redis_server, prefix, 3)
    history = await node.broker.read_history("news", HistoryQuery(top, -1), HISTORY)
    assert history.top.offset == 0
    assert history.top.epoch != top.epoch
    assert (await node.broker.read_history("news", TOP_ONLY, HISTORY)).top == history.top


async def test_a_publish_does_not_continue_a_rolled_back_history(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """No offset is used twice in one epoch."""
    await node.broker.subscribe("news")
    top = await publish_many(node, 5)
    roll_back(redis_server, prefix, 3)
    position = await node.broker.publish("news", publication(4), HISTORY)
    assert position.offset == 1
    assert position.epoch != top.epoch
    history = await node.broker.read_history("news", ALL, HISTORY)
    assert [bytes(publication.data) for publication in history.publications] == [b"4"]


async def test_a_received_publication_reveals_a_rollback(
    running: Running, node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """The node has published nothing itself."""
    async with running(redis_server.url, "n2") as other:
        await follow(other)
        top = await publish_many(node, 5)
        await other.handler.until_received(5)
        roll_back(redis_server, prefix, 4)
        assert (await other.broker.read_history("news", TOP_ONLY, HISTORY)).top.epoch != top.epoch


async def test_the_result_of_a_publish_reveals_a_rollback_to_a_deaf_node(
    running: Running, proxy: BlackholeProxy, redis_server: RedisServer, prefix: str
) -> None:
    """It has received nothing."""
    async with running(proxy.url) as node:
        await node.broker.subscribe("news")
        proxy.drop_pubsub()
        proxy.drop_subscribers()
        top = await publish_many(node, 5)
        roll_back(redis_server, prefix, 3)
        assert (await node.broker.publish("news", publication(4), HISTORY)).epoch != top.epoch
        assert not node.handler.received


async def test_seen_positions_are_forgotten_with_the_subscription(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """A node remembers nothing about channels without subscribers."""
    await node.broker.subscribe("news")
    top = await publish_many(node, 5)
    await node.broker.unsubscribe("news")
    roll_back(redis_server, prefix, 3)
    assert await node.broker.publish("news", publication(4), HISTORY) == Position(4, top.epoch)


@pytest.mark.parametrize("replaced", [2, 4], ids=["same length", "longer"])
async def test_a_read_detects_that_a_lost_end_was_replaced(
    running: Running,
    proxy: BlackholeProxy,
    node: Node,
    redis_server: RedisServer,
    prefix: str,
    replaced: int,
) -> None:
    """The publishing node does not know of it. A subscribed node finds other publications."""
    async with running(proxy.url, "n2") as other:
        await follow(other)
        top = await publish_many(node, 5)
        await other.handler.until_received(5)
        proxy.drop_pubsub()
        roll_back(redis_server, prefix, 3)
        assert await publish_many(node, replaced) == Position(3 + replaced, top.epoch)
        history = await other.broker.read_history("news", HistoryQuery(top, -1), HISTORY)
        assert history.top.offset == 0
        assert history.top.epoch != top.epoch


async def test_a_publication_that_was_read_reveals_a_replacement(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """A node that subscribed late knows the last publication from its read."""
    await publish_many(node, 5)
    await node.broker.subscribe("news")
    top = (await node.broker.read_history("news", ALL, HISTORY)).top
    replace_end(redis_server, prefix)
    assert (await node.broker.read_history("news", TOP_ONLY, HISTORY)).top.epoch != top.epoch


async def test_a_publication_at_a_seen_offset_reveals_a_replacement(
    running: Running, node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Without waiting for a new pub/sub connection."""
    async with running(redis_server.url, "n2") as other:
        await follow(other)
        await publish_many(node, 5)
        await other.handler.until_received(5)
        roll_back(redis_server, prefix, 3)
        await publish_many(node, 1)
        await other.catch_up()
        assert other.handler.resubscribed == []
        await publish_many(node, 1)
        await other.handler.until(lambda: other.handler.resubscribed == [["news"]])


async def test_a_history_without_the_seen_publication_continues(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """It was trimmed, which is no evidence of a loss."""
    await node.broker.subscribe("news")
    top = await publish_many(node, 5)
    redis_server.command("XTRIM", f"{prefix}:{{news}}:log", "MAXLEN", 0)
    assert (await node.broker.read_history("news", TOP_ONLY, HISTORY)).top == top


async def test_offsets_compare_as_numbers(node: Node) -> None:
    """9 is below 10, although the script compares strings."""
    await node.broker.subscribe("news")
    top = await publish_many(node, 9)
    positions = await asyncio.gather(
        *(node.broker.publish("news", publication(n), HISTORY) for n in range(95))
    )
    assert positions[-1] == Position(104, top.epoch)


async def test_a_history_without_its_top_is_dropped(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """As when Redis evicted only the top: the new history contains no old publications."""
    await publish_many(node, 3)
    redis_server.command("DEL", f"{prefix}:{{news}}:meta")
    assert (await node.broker.publish("news", publication(9), HISTORY)).offset == 1
    assert [len(p.data) for p in (await node.broker.read_history("news", ALL, HISTORY)).publications] == [1]


async def test_a_channel_without_history_leaves_no_keys(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Neither by publishing nor by subscribing."""
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), NO_HISTORY)
    assert redis_server.command("KEYS", f"{prefix}:{{*") == []
