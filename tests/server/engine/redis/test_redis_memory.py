"""What Redis remembers: logs go on where they were, and one that lost its end has another epoch."""

import asyncio

import pytest

from tests.server.engine.contract.harness import LOG, NO_LOG, Node, publication
from tests.server.engine.redis.blackhole_proxy import BlackholeProxy
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer
from tests.server.engine.redis.waiting import until_ready
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.protocol.messages import ClientInfo, Position

ALL = HistoryQuery(limit=-1)


async def restarted(node: Node, server: RedisServer) -> None:
    """Kill Redis, start it again, and wait until the node has noticed both."""
    server.stop()
    server.start()
    await node.handler.until(lambda: bool(node.handler.resubscribed))
    await until_ready(node)


async def published(node: Node, count: int) -> Position:
    for number in range(1, count + 1):
        position = await node.broker.publish("news", publication(number), LOG)
    return position


async def test_a_redis_that_remembers_goes_on(running: Running, lasting_redis: RedisServer) -> None:
    """Same epoch, next offset, nothing missing; and who was present is present."""
    async with running(lasting_redis.url) as node:
        await node.broker.subscribe("news")
        await node.presence.add("news", ClientInfo("42", "c1"))
        top = await published(node, 3)
        await restarted(node, lasting_redis)
        history = await node.broker.read_history("news", ALL, LOG)
        assert history.top == top
        assert len(history.publications) == 3
        assert await node.broker.publish("news", publication(4), LOG) == (4, top.epoch)
        assert list(await node.presence.members("news")) == ["c1"]


async def test_a_redis_that_forgot_begins_anew(running: Running, fleeting_redis: RedisServer) -> None:
    """Another epoch says that the log is another one; presence is told to it again."""
    async with running(fleeting_redis.url) as node:
        await node.broker.subscribe("news")
        await node.presence.add("news", ClientInfo("42", "c1"), is_announced=True)
        top = await published(node, 3)
        await restarted(node, fleeting_redis)
        history = await node.broker.read_history("news", ALL, LOG)
        assert history.top.offset == 0
        assert history.top.epoch != top.epoch
        await node.handler.until_pushed(1)
        assert node.handler.pushes[0][1].join is not None
        assert list(await node.presence.members("news")) == ["c1"]
        assert [report.uid for report in (await node.nodes.survey(SurveyRequest())).nodes] == ["n1"]


def roll_back(server: RedisServer, prefix: str, offset: int) -> None:
    """Make Redis forget the end of the log of `news`, as a failover to a late replica does."""
    log = f"{prefix}:{{news}}:log"
    for identity, _ in server.command("XRANGE", log, offset + 1, "+"):
        server.command("XDEL", log, identity)
    server.command("XSETID", log, f"{offset}-{2**64 - 1}")
    server.command("HSET", f"{prefix}:{{news}}:meta", "offset", offset)


def replace_end(server: RedisServer, prefix: str) -> None:
    """Put another publication into the place of the last one, as after a failover."""
    log = f"{prefix}:{{news}}:log"
    ((identity, fields),) = server.command("XREVRANGE", log, "+", "-", "COUNT", 1)
    offset, stamp = map(int, identity.split(b"-"))
    server.command("XDEL", log, identity)
    server.command("XADD", log, f"{offset}-{stamp + 1}", "1", fields[b"1"])


async def test_a_read_shows_that_a_log_was_rolled_back(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Who listens has seen more than there is: the log begins anew, for everybody."""
    await node.broker.subscribe("news")
    top = await published(node, 5)
    roll_back(redis_server, prefix, 3)
    history = await node.broker.read_history("news", HistoryQuery(top, -1), LOG)
    assert history.top.offset == 0
    assert history.top.epoch != top.epoch
    assert (await node.broker.read_history("news", TOP_ONLY, LOG)).top == history.top


async def test_a_publication_does_not_continue_a_log_that_was_rolled_back(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """No offset is given out twice in one epoch."""
    await node.broker.subscribe("news")
    top = await published(node, 5)
    roll_back(redis_server, prefix, 3)
    position = await node.broker.publish("news", publication(4), LOG)
    assert position.offset == 1
    assert position.epoch != top.epoch
    history = await node.broker.read_history("news", ALL, LOG)
    assert [bytes(publication.data) for publication in history.publications] == [b"4"]


async def test_what_was_heard_counts_as_well(
    running: Running, node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """A node that published nothing itself has seen the log by listening."""
    async with running(redis_server.url, "n2") as other:
        await other.broker.subscribe("news")
        top = await published(node, 5)
        await other.handler.until_received(5)
        roll_back(redis_server, prefix, 4)
        assert (await other.broker.read_history("news", TOP_ONLY, LOG)).top.epoch != top.epoch


async def test_what_was_answered_counts_although_nothing_is_heard(
    running: Running, swallower: BlackholeProxy, redis_server: RedisServer, prefix: str
) -> None:
    """A deaf publisher knows what it was told."""
    async with running(swallower.url) as node:
        await node.broker.subscribe("news")
        swallower.drop_pubsub()
        swallower.drop_subscribers()
        top = await published(node, 5)
        roll_back(redis_server, prefix, 3)
        assert (await node.broker.publish("news", publication(4), LOG)).epoch != top.epoch
        assert not node.handler.received


async def test_what_a_node_knew_of_a_channel_it_forgot_does_not_count(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Nothing is remembered of channels that nobody listens to."""
    await node.broker.subscribe("news")
    top = await published(node, 5)
    await node.broker.unsubscribe("news")
    roll_back(redis_server, prefix, 3)
    assert await node.broker.publish("news", publication(4), LOG) == (4, top.epoch)


@pytest.mark.parametrize("replaced", [2, 4], ids=["as far", "further"])
async def test_an_end_that_was_lost_and_replaced_is_seen_by_reading(
    running: Running,
    swallower: BlackholeProxy,
    node: Node,
    redis_server: RedisServer,
    prefix: str,
    replaced: int,
) -> None:
    """Who publishes knows nothing of it; who had heard the lost ones finds others in their places."""
    async with running(swallower.url, "n2") as other:
        await other.broker.subscribe("news")
        top = await published(node, 5)
        await other.handler.until_received(5)
        swallower.drop_pubsub()
        roll_back(redis_server, prefix, 3)
        assert await published(node, replaced) == (3 + replaced, top.epoch)
        history = await other.broker.read_history("news", HistoryQuery(top, -1), LOG)
        assert history.top.offset == 0
        assert history.top.epoch != top.epoch


async def test_what_was_read_tells_as_well_what_was_replaced(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """A node that came late knows the log's last publication by having read it."""
    await published(node, 5)
    await node.broker.subscribe("news")
    top = (await node.broker.read_history("news", ALL, LOG)).top
    replace_end(redis_server, prefix)
    assert (await node.broker.read_history("news", TOP_ONLY, LOG)).top.epoch != top.epoch


async def test_an_announcement_in_anothers_place_gives_rise_to_reading(
    running: Running, node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Without waiting for a new link."""
    async with running(redis_server.url, "n2") as other:
        await other.broker.subscribe("news")
        await published(node, 5)
        await other.handler.until_received(5)
        roll_back(redis_server, prefix, 3)
        await published(node, 1)
        await other.catch_up()
        assert other.handler.resubscribed == []
        await published(node, 1)
        await other.handler.until(lambda: other.handler.resubscribed == [["news"]])


async def test_a_log_that_has_dropped_the_place_is_believed(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Nothing is known against it."""
    await node.broker.subscribe("news")
    top = await published(node, 5)
    redis_server.command("XTRIM", f"{prefix}:{{news}}:log", "MAXLEN", 0)
    assert (await node.broker.read_history("news", TOP_ONLY, LOG)).top == top


async def test_offsets_that_grow_longer_are_not_taken_for_smaller(node: Node) -> None:
    """9 is below 10, also in a language without whole numbers."""
    await node.broker.subscribe("news")
    top = await published(node, 9)
    positions = await asyncio.gather(*(node.broker.publish("news", publication(n), LOG) for n in range(95)))
    assert positions[-1] == (104, top.epoch)


async def test_a_log_without_its_top_is_dropped(node: Node, redis_server: RedisServer, prefix: str) -> None:
    """As when Redis evicted one of both: a new log does not keep another one's publications."""
    await published(node, 3)
    redis_server.command("DEL", f"{prefix}:{{news}}:meta")
    assert (await node.broker.publish("news", publication(9), LOG)).offset == 1
    assert [len(p.data) for p in (await node.broker.read_history("news", ALL, LOG)).publications] == [1]


async def test_nothing_is_kept_of_a_channel_without_a_log(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Neither by publishing nor by listening."""
    await node.broker.subscribe("news")
    await node.broker.publish("news", publication(1), NO_LOG)
    assert redis_server.command("KEYS", f"{prefix}:{{*") == []
