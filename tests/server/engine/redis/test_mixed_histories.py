"""Nodes that disagree about which channels keep history, as during a rolling update."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tests.server.engine.recording_handler import RecordingHandler
from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import QUIET, STARTED
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.loading import Settings
from tocsin_server.engine.broker import NO_POSITION, TOP_ONLY, HistoryQuery, NewPublication
from tocsin_server.engine.factory import digest_of_histories
from tocsin_server.engine.redis.connections.address import parse_address
from tocsin_server.engine.redis.engine import RedisEngine
from tocsin_server.engine.redis.membership import lease

ALL = HistoryQuery(limit=-1)


async def started(server: RedisServer, prefix: str, uid: str, options: ChannelOptions) -> Node:
    """Start a node whose channels have these options."""
    digest = digest_of_histories(Settings(channels=options))
    engine = RedisEngine(parse_address(server.url), prefix, digest=digest)
    node = Node(engine, RecordingHandler(uid))
    await engine.start(node.handler)
    return node


async def until_mixed(node: Node, *, is_mixed: bool = True) -> None:
    """Wait until a node knows of a node with another configuration, or of none."""
    async with asyncio.timeout(STARTED):
        while node.engine._lease.is_mixed != is_mixed:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(QUIET / 10)


@pytest.fixture(autouse=True)
def short_notice(monkeypatch: pytest.MonkeyPatch, short_leases: None) -> None:
    monkeypatch.setattr(lease, "NOTICE_SECONDS", lease.RENEW_SECONDS * 1.5)


@pytest.fixture
async def plain(redis_server: RedisServer, prefix: str) -> AsyncIterator[Node]:
    """A node that keeps no history."""
    node = await started(redis_server, prefix, "plain", NO_HISTORY)
    yield node
    await node.engine.stop()


@pytest.fixture
async def keeping(redis_server: RedisServer, prefix: str, plain: Node) -> AsyncIterator[Node]:
    """A node that keeps history, and started later."""
    node = await started(redis_server, prefix, "keeping", HISTORY)
    await until_mixed(plain)
    yield node
    await node.engine.stop()


async def payloads(node: Node) -> list[bytes]:
    history = await node.broker.read_history("news", ALL, HISTORY)
    return [bytes(each.data) for each in history.publications]


@pytest.mark.parametrize("first", ["plain", "keeping"])
async def test_a_client_recovers_what_nodes_without_history_published(
    plain: Node, keeping: Node, first: str
) -> None:
    """It read its position before the first publication, which either node makes."""
    since = (await keeping.broker.read_history("news", TOP_ONLY, HISTORY)).top
    publishers = [(plain, NO_HISTORY), (keeping, HISTORY)]
    if first == "keeping":
        publishers.reverse()
    for number, (node, options) in enumerate(publishers * 2, start=1):
        await node.broker.publish("news", publication(number), options)
    history = await keeping.broker.read_history("news", HistoryQuery(since, -1), HISTORY)
    assert history.top.epoch == since.epoch
    assert [bytes(each.data) for each in history.publications] == [b"1", b"2", b"3", b"4"]


async def test_subscribers_of_both_nodes_receive_the_same_offsets(plain: Node, keeping: Node) -> None:
    """So the node without history delivers them, and the other one misses none."""
    await keeping.broker.read_history("news", TOP_ONLY, HISTORY)
    for node in (plain, keeping):
        await node.broker.subscribe("news")
    await plain.broker.publish("news", publication(1), NO_HISTORY)
    await keeping.broker.publish("news", publication(2), HISTORY)
    for node in (plain, keeping):
        await node.handler.until_received(2)
        assert node.handler.offsets("news") == [1, 2]


async def test_a_client_whose_position_may_be_incomplete_is_told(plain: Node, keeping: Node) -> None:
    """Nothing is stored of a publication into a channel of which no node knows a position any longer."""
    since = (await keeping.broker.read_history("news", TOP_ONLY, HISTORY)).top
    keys = keeping.engine._keys  # type: ignore[attr-defined]
    await keeping.engine._deployment.commands.execute("DEL", keys.meta("news"))  # type: ignore[attr-defined]
    assert await plain.broker.publish("news", publication(1), NO_HISTORY) == NO_POSITION
    assert (await keeping.broker.read_history("news", TOP_ONLY, HISTORY)).top.epoch != since.epoch


async def test_an_initial_epoch_ends_when_nodes_disagree(redis_server: RedisServer, prefix: str) -> None:
    """Also after they agree again: a node without history may have published in between."""
    node = await started(redis_server, prefix, "n1", HISTORY)
    since = (await node.broker.read_history("news", TOP_ONLY, HISTORY)).top
    plain = await started(redis_server, prefix, "plain", NO_HISTORY)
    await until_mixed(node)
    await plain.broker.publish("news", publication(1), NO_HISTORY)
    await plain.engine.stop()
    await until_mixed(node, is_mixed=False)
    assert (await node.broker.read_history("news", TOP_ONLY, HISTORY)).top.epoch != since.epoch
    await node.engine.stop()


async def test_a_publication_that_skips_history_is_not_stored(plain: Node, keeping: Node) -> None:
    """Its caller wants that."""
    await keeping.broker.read_history("news", TOP_ONLY, HISTORY)
    skipping = NewPublication(publication(1).data, skip_history=True)
    for node, options in ((plain, NO_HISTORY), (keeping, HISTORY)):
        assert await node.broker.publish("news", skipping, options) == NO_POSITION
    assert await payloads(keeping) == []


async def test_a_repeated_key_is_published_once_by_both_nodes(plain: Node, keeping: Node) -> None:
    """The result of the first publish is that of the second."""
    await keeping.broker.read_history("news", TOP_ONLY, HISTORY)
    keyed = NewPublication(publication(1).data, idempotency_key="k")
    first = await plain.broker.publish("news", keyed, NO_HISTORY)
    assert first.offset == 1
    assert await keeping.broker.publish("news", keyed, HISTORY) == first
    assert await payloads(keeping) == [b"1"]


async def test_a_top_of_an_older_version_starts_over(
    plain: Node, keeping: Node, redis_server: RedisServer, prefix: str
) -> None:
    """It does not say how to continue the history, so clients are told of the gap."""
    top = await keeping.broker.publish("news", publication(1), HISTORY)
    redis_server.command("HDEL", f"{prefix}:{{news}}:meta", "keep")
    await plain.broker.publish("news", publication(2), NO_HISTORY)
    assert (await keeping.broker.read_history("news", TOP_ONLY, HISTORY)).top.epoch != top.epoch


async def test_a_lease_of_an_older_version_counts_as_another_configuration(
    redis_server: RedisServer, prefix: str
) -> None:
    """Its node says nothing about its histories."""
    redis_server.command("HSET", f"{prefix}:nodes", "old.abcdef", 1)
    node = await started(redis_server, prefix, "n1", HISTORY)
    assert node.engine._lease.is_mixed  # type: ignore[attr-defined]
    await node.engine.stop()


def test_the_digest_tells_which_channels_keep_history() -> None:
    """Other options may differ."""
    plain = Settings()
    keeping = Settings(channels=HISTORY)
    assert digest_of_histories(plain) == digest_of_histories(Settings(namespaces={"chat": NO_HISTORY}))
    assert digest_of_histories(keeping) == digest_of_histories(
        Settings(channels=ChannelOptions(history_size=1, history_ttl=1, presence=True))
    )
    named = Settings(namespaces={"chat": HISTORY})
    assert len({digest_of_histories(each) for each in (plain, keeping, named)}) == 3
