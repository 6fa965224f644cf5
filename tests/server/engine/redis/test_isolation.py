"""Isolation: two systems that share a Redis receive nothing of each other. So do versions of the format."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tests.server.engine.contract.test_nodes import COMMANDS
from tests.server.engine.contract.test_subscribing import JOIN
from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.conftest import Running
from tests.server.engine.redis.redis_server import RedisServer
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import ClientInfo


@pytest.fixture(params=["database", "prefix"])
async def stranger(
    request: pytest.FixtureRequest, redis_server: RedisServer, prefix: str
) -> AsyncIterator[Node]:
    """A node of another system on the same Redis: in another database, or under another prefix."""
    is_database = request.param == "database"
    address = parse_address(f"{redis_server.url}/1" if is_database else redis_server.url)
    stranger = Node(
        RedisEngine(address, prefix if is_database else f"{prefix}.other"), RecordingHandler("n2")
    )
    await stranger.engine.start(stranger.handler)
    yield stranger
    await stranger.engine.stop()


async def test_another_system_receives_no_publications(node: Node, stranger: Node) -> None:
    """With or without history, and no joins."""
    for here, there in ((node, stranger), (stranger, node)):
        await here.broker.subscribe("news")
        await there.broker.publish("news", publication(1), HISTORY)
        await there.broker.publish("news", publication(2), NO_HISTORY)
        await there.broker.publish_join_leave("news", JOIN)
        await there.catch_up()
        await here.catch_up()
        assert not here.handler.payloads("news")
        assert not here.handler.pushes
        await here.broker.unsubscribe("news")


async def test_another_system_does_not_apply_control_commands(node: Node, stranger: Node) -> None:
    """It is not in the survey either."""
    for here, there in ((node, stranger), (stranger, node)):
        await there.nodes.publish_control(COMMANDS["disconnect"])
        reports = (await there.nodes.survey(SurveyRequest())).nodes
        assert [report.uid for report in reports] == [there.handler.uid]
        await here.catch_up()
        assert not here.handler.requests
        assert not here.handler.commands
        there.handler.commands.clear()
        there.handler.requests.clear()


async def test_another_system_has_its_own_channels(node: Node, stranger: Node) -> None:
    """History, presence and idempotency keys."""
    await stranger.presence.add("news", ClientInfo("42", "c1"))
    first = await stranger.broker.publish("news", publication(1), HISTORY)
    assert (await node.broker.read_history("news", TOP_ONLY, HISTORY)).top.epoch != first.epoch
    assert not await node.presence.members("news")


def test_every_pubsub_name_has_the_database() -> None:
    """Pub/sub has no databases. No prefix contains a slash, so no other system has the same names."""
    first, other = Keys("tocsin"), Keys("tocsin", 7)
    for keys, head in ((first, "tocsin:"), (other, "tocsin/7:")):
        names = [
            keys.control,
            keys.responses("n1"),
            keys.probe("n1"),
            keys.shard_probe("n1", "x"),
            keys.pubsub_name("news"),
            keys.of_history("news")[0],
        ]
        assert [name for name in names if not name.startswith(head)] == []
    assert first.of_history("news")[1:] == other.of_history("news")[1:], "keys are in the database"


# ------------------------------------------------------------------------------------ versions of the format


def ignored(logs: list[dict[str, object]]) -> list[object]:
    """The kinds of messages that were logged as ignored."""
    return [entry["kind"] for entry in logs if entry["event"] == "messages_of_other_version_ignored"]


async def test_messages_of_another_version_are_ignored_and_logged_once(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """In a channel, in requests and in responses. The node goes on."""
    await node.broker.subscribe("news")
    keys = Keys(prefix)
    request = b'[1,"nowhere",{"user":"42","event":{"type":"ServerRefresh"}}]'
    with capture_logs() as logs:
        for _ in range(3):
            redis_server.command("PUBLISH", keys.pubsub_name("news"), b"2p1 0 \nabc")
            redis_server.command("PUBLISH", keys.control, b"1q\n" + request)
            redis_server.command("PUBLISH", keys.control, request)
            redis_server.command("PUBLISH", keys.responses("n1"), b'1r\n[1,"n9"]')
        await node.catch_up()
    assert sorted(map(str, ignored([dict(entry) for entry in logs]))) == [
        "channel messages",
        "requests",
        "responses",
    ]
    assert not node.handler.commands
    assert not node.handler.payloads("news")
    await node.nodes.publish_control(COMMANDS["disconnect"])


async def test_a_malformed_response_is_dropped(node: Node, redis_server: RedisServer, prefix: str) -> None:
    """So is a malformed request. The connection stays."""
    links = node.engine.health.links
    redis_server.command("PUBLISH", Keys(prefix).responses("n1"), b"2r\n{")
    redis_server.command("PUBLISH", Keys(prefix).control, b"2q\n{")
    redis_server.command("PUBLISH", Keys(prefix).probe("n1"), b"not a number")
    await node.catch_up()
    await asyncio.sleep(0)
    assert node.engine.health.links == links


async def test_presence_entries_of_another_version_are_ignored(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """The entries of this version are read."""
    await node.presence.add("news", ClientInfo("42", "c1"))
    redis_server.command("HSET", Keys(prefix).presence("news"), "c2", b"\x92\x02\xc0")
    with capture_logs() as logs:
        assert list(await node.presence.members("news")) == ["c1"]
        assert list(await node.presence.members("news")) == ["c1"]
    assert ignored([dict(entry) for entry in logs]) == ["presence entries"]


@pytest.mark.parametrize("entry", [b"\x92\x02\xc0", b"\xc1", b"text"])
async def test_presence_entries_of_another_version_hinder_no_change(
    node: Node, running: Running, redis_server: RedisServer, prefix: str, entry: bytes
) -> None:
    """Entries of this version are reaped, replaced and removed beside them."""
    await node.broker.subscribe("news")
    redis_server.command("HSET", Keys(prefix).presence("news"), "c8", entry, "c9", entry)
    async with running(redis_server.url, "n2") as other:
        await other.presence.add("news", ClientInfo("1", "c1"), is_announced=True)
    await node.handler.until_pushed(1)
    assert not await node.presence.members("news")
    await node.presence.add("news", ClientInfo("2", "c8"))
    assert list(await node.presence.members("news")) == ["c8"]
    await node.presence.remove("news", "c8")
    await node.presence.remove("news", "c9")
    assert await node.presence.stats("news") == (0, 0)


async def test_a_history_of_another_version_is_an_error(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """A part of it would be a silent gap."""
    await node.broker.publish("news", publication(1), HISTORY)
    redis_server.command("XADD", Keys(prefix).history("news"), "2-0", "2", b"other")
    with pytest.raises(EngineError, match="another version"):
        await node.broker.read_history("news", HistoryQuery(limit=-1), HISTORY)


async def test_two_nodes_of_one_database_are_one_system(running: Running, redis_server: RedisServer) -> None:
    """Also in a database other than 0."""
    url = f"{redis_server.url}/5"
    async with running(url) as one, running(url, "n2") as two:
        await one.broker.subscribe("news")
        await two.broker.publish("news", publication(1), HISTORY)
        await two.nodes.publish_control(COMMANDS["disconnect"])
        await one.handler.until_received(1)
        await one.handler.until_commanded(1)
