"""Which keys clients can make a node store: none for channels without publications and clients."""

import time
from collections.abc import Callable

import pytest

from tests.server.engine.contract.harness import HISTORY, Node, publication
from tests.server.engine.redis.redis_server import RedisServer
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery, NewPublication
from tocsin_server.errors import PresenceFull
from tocsin_server.protocol.messages import ClientInfo

FOLLOWED = HistoryQuery(keeps_epoch=True)


@pytest.fixture
def keys(redis_server: RedisServer, prefix: str) -> Callable[[], set[str]]:
    """The keys of the test's system, without those of the node and of the initial epoch."""

    def keys() -> set[str]:
        found = {key.decode() for key in redis_server.command("KEYS", f"{prefix}:*")}
        own = (f"{prefix}:node", f"{prefix}:epochs", f"{prefix}:secret")
        return {key for key in found if not key.startswith(own)}

    return keys


async def test_reading_endless_channels_stores_nothing(node: Node, keys: Callable[[], set[str]]) -> None:
    """Neither do their presence, subscriptions that end, nor the removal of a history."""
    for number in range(100):
        channel, client = f"news:{number}", ClientInfo("42", f"c{number}")
        await node.broker.subscribe(channel)
        await node.presence.add(channel, client)
        await node.broker.read_history(channel, TOP_ONLY, HISTORY)
        await node.broker.read_history(channel, HistoryQuery(limit=-1), HISTORY)
        await node.presence.members(channel)
        await node.presence.stats(channel)
        await node.presence.remove(channel, client.client)
        await node.broker.unsubscribe(channel)
        await node.broker.remove_history(channel)
        await node.broker.publish(channel, NewPublication(publication(1).data, skip_history=True), HISTORY)
    assert keys() == set()


async def test_a_presence_entry_that_was_refused_stores_nothing(
    node: Node, keys: Callable[[], set[str]], redis_server: RedisServer, prefix: str
) -> None:
    """Neither an entry nor the channel on the list of the node."""
    await node.presence.add("news", ClientInfo("1", "c1"), limit=1)
    (before, lists) = keys(), redis_server.command("KEYS", f"{prefix}:node:*:channels")
    with pytest.raises(PresenceFull):
        await node.presence.add("news", ClientInfo("2", "c2"), limit=1)
    assert keys() == before
    await node.presence.remove("news", "c1")
    assert keys() == set()
    assert [redis_server.command("EXISTS", key) for key in lists] == [0]


async def test_a_followed_epoch_is_stored_for_a_minute(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """A later read of a new subscriber does not prolong that, and a publication does."""
    meta = f"{prefix}:{{news}}:meta"
    await node.broker.subscribe("news")
    await node.broker.read_history("news", FOLLOWED, HISTORY)
    await node.broker.read_history("news", TOP_ONLY, HISTORY)
    assert 0 < redis_server.command("PTTL", meta) <= 60_000
    await node.broker.publish("news", publication(1), HISTORY)
    assert redis_server.command("PTTL", meta) > 29 * 86400 * 1000


async def test_a_history_lives_for_its_time_after_each_publication(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """And at most a second longer, also after another node or a removal has changed its keys."""
    (history, meta), ttl_ms = (f"{prefix}:{{news}}:{name}" for name in ("log", "meta")), 3_600_000
    for left in (None, 0, ttl_ms - 1, ttl_ms + 500, 2 * ttl_ms):
        if left == 0:
            await node.broker.remove_history("news")
        elif left:
            redis_server.command("PEXPIRE", history, left)
            redis_server.command("PEXPIRE", meta, left)
        sent_at = time.monotonic()
        await node.broker.publish("news", publication(1), HISTORY)
        left_ms = [redis_server.command("PTTL", key) for key in (history, meta)]
        lived_ms = (time.monotonic() - sent_at) * 1000 + 2
        assert ttl_ms - lived_ms <= left_ms[0] <= ttl_ms + 1000
        assert left_ms[1] > HISTORY.history_meta_ttl * 1000 - lived_ms


async def test_a_top_that_was_lost_alone_gets_another_epoch(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """A node that has seen its publications finds out, and no history gets that epoch again."""
    await node.broker.subscribe("news")
    top = await node.broker.publish("news", publication(1), HISTORY)
    redis_server.command("DEL", f"{prefix}:{{news}}:meta")
    assert (await node.broker.read_history("news", TOP_ONLY, HISTORY)).top.epoch != top.epoch
    assert (await node.broker.read_history("weather", TOP_ONLY, HISTORY)).top.epoch != top.epoch
    assert (await node.broker.publish("news", publication(2), HISTORY)).epoch != top.epoch


async def test_a_detected_loss_ends_the_initial_epoch_once(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Further losses in that epoch do not change it again: clients in other channels would notice."""
    for channel in ("a", "b", "c"):
        await node.broker.subscribe(channel)
        await node.broker.publish(channel, publication(1), HISTORY)
        redis_server.command("DEL", f"{prefix}:{{{channel}}}:meta")
    epochs = {
        (await node.broker.read_history(channel, TOP_ONLY, HISTORY)).top.epoch for channel in ("a", "b", "c")
    }
    assert len(epochs) == 1


async def test_a_shorter_time_to_live_never_shortens_a_stored_one(
    node: Node, redis_server: RedisServer, prefix: str
) -> None:
    """Another node may have a longer one, and its initial epoch must not outlive the top."""
    await node.broker.publish("news", publication(1), HISTORY)
    shorter = HISTORY.model_copy(update={"history_meta_ttl": 3600})
    await node.broker.publish("news", publication(1), shorter)
    await node.broker.read_history("news", TOP_ONLY, shorter)
    assert redis_server.command("PTTL", f"{prefix}:{{news}}:meta") > 29 * 86400 * 1000
