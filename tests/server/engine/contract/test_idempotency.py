"""Idempotency: within one channel, each key is published once (docs/protocol.md §14)."""

import asyncio

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Harness, Node
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.engine.broker import IDEMPOTENCY_SECONDS, NO_POSITION, Broker, NewPublication
from tocsin_server.protocol.messages import Position


def keyed(number: int, key: str = "k") -> NewPublication:
    return NewPublication(Raw(b"%d" % number), idempotency_key=key)


async def test_a_repeated_key_returns_the_first_result(node: Node) -> None:
    """Even after further publications. The repetition is neither stored nor published."""
    await node.broker.subscribe("news")
    first = await node.broker.publish("news", keyed(1), HISTORY)
    await node.broker.publish("news", keyed(2, "other"), HISTORY)
    assert await node.broker.publish("news", keyed(3), HISTORY) == first
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1", b"2"]


async def test_a_key_is_unique_within_its_channel_only(node: Node) -> None:
    """Also if one channel's name is a prefix of another's."""
    for channel in ("a", "b", "a:k", "a:"):
        await node.broker.subscribe(channel)
        await node.broker.publish(channel, keyed(1), HISTORY)
    await node.broker.publish("a", keyed(1, "k:k"), HISTORY)
    await node.catch_up()
    assert node.handler.offsets("a") == [1, 2]
    assert [node.handler.offsets(channel) for channel in ("b", "a:k", "a:")] == [[1], [1], [1]]


async def test_a_key_is_remembered_for_as_long_as_its_publication_says(node: Node, harness: Harness) -> None:
    """Until the publisher lets it expire: then as long as any other from that moment on."""
    kept = NewPublication(Raw(b"1"), idempotency_key="k", idempotency_seconds=10 * IDEMPOTENCY_SECONDS)
    first = await node.broker.publish("news", kept, HISTORY)
    await harness.advance(2 * IDEMPOTENCY_SECONDS)
    assert await node.broker.publish("news", kept, HISTORY) == first
    await node.broker.expire_keys([("news", "k"), ("news", "unknown"), ("other", "k")])
    await harness.advance(IDEMPOTENCY_SECONDS / 2)
    assert await node.broker.publish("news", kept, HISTORY) == first
    await harness.advance(IDEMPOTENCY_SECONDS)
    assert (await node.broker.publish("news", kept, HISTORY)).offset == 2


@pytest.mark.parametrize(
    ("options", "skip_history"), [(NO_HISTORY, False), (HISTORY, True)], ids=["no history", "skip_history"]
)
async def test_a_key_works_without_history(node: Node, options: ChannelOptions, skip_history: bool) -> None:
    """The first result then has no position."""
    await node.broker.subscribe("news")
    for number in (1, 2):
        draft = NewPublication(Raw(b"%d" % number), skip_history=skip_history, idempotency_key="k")
        assert await node.broker.publish("news", draft, options) == NO_POSITION
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]


async def test_concurrent_publishes_with_one_key_store_the_first(node: Node) -> None:
    """The check and the publish are one atomic step."""
    await node.broker.subscribe("news")
    positions = await asyncio.gather(*(node.broker.publish("news", keyed(n), HISTORY) for n in range(20)))
    assert len(set(positions)) == 1
    await node.catch_up()
    assert node.handler.payloads("news") == [b"0"]


async def test_a_key_outlives_removed_history(node: Node) -> None:
    """A removed publication cannot be published again with its key."""
    first = await node.broker.publish("news", keyed(1), HISTORY)
    await node.broker.remove_history("news")
    assert await node.broker.publish("news", keyed(1), HISTORY) == first


async def test_the_result_for_an_outdated_version_is_remembered(node: Node) -> None:
    """If the first publish was outdated, the repetition is not published either."""
    await node.broker.publish("news", NewPublication(Raw(b"1"), version=5), HISTORY)
    outdated = NewPublication(Raw(b"2"), version=4, idempotency_key="k")
    top = await node.broker.publish("news", outdated, HISTORY)
    await node.broker.publish("news", NewPublication(Raw(b"3"), version=6), HISTORY)
    assert await node.broker.publish("news", outdated, HISTORY) == top == Position(1, top.epoch)


NAMES = ("a", "a:idem:x", "a}", "{a}", "a}:idem:x", "*", "a b", "a\nb", "a\0b", "é", "x" * 255)
KEYS = ("x", "x:idem:x", "}", "%7D", "{", "*", " ", "\n", "\0", "a:idem:x", "x" * 300)


async def test_no_name_and_key_are_taken_for_others(broker: Broker) -> None:
    """For any characters. Each pair is published once, and a repetition returns its own result."""
    pairs = [(name, key) for name in NAMES for key in KEYS]
    first = [await broker.publish(name, keyed(1, key), HISTORY) for name, key in pairs]
    assert [position.offset for position in first] == [*range(1, len(KEYS) + 1)] * len(NAMES)
    assert [await broker.publish(name, keyed(2, key), HISTORY) for name, key in pairs] == first
