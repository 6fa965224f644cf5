"""Idempotency: within one channel the same key is published once (protocol §14)."""

import asyncio

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import LOG, NO_LOG, Node
from tocsin_server.config.options import ChannelOptions
from tocsin_server.engine.broker import NO_POSITION, NewPublication


def keyed(number: int, key: str = "k") -> NewPublication:
    return NewPublication(Raw(b"%d" % number), idempotency_key=key)


async def test_a_repeated_key_gets_the_first_answer(node: Node) -> None:
    """Also when the log has gone on since; the repetition is neither kept nor announced."""
    await node.broker.subscribe("news")
    first = await node.broker.publish("news", keyed(1), LOG)
    await node.broker.publish("news", keyed(2, "other"), LOG)
    assert await node.broker.publish("news", keyed(3), LOG) == first
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1", b"2"]


async def test_a_key_counts_within_its_channel(node: Node) -> None:
    """Another channel may use the same one, also where one name continues the other's."""
    for channel in ("a", "b", "a:k", "a:"):
        await node.broker.subscribe(channel)
        await node.broker.publish(channel, keyed(1), LOG)
    await node.broker.publish("a", keyed(1, "k:k"), LOG)
    await node.catch_up()
    assert node.handler.offsets("a") == [1, 2]
    assert [node.handler.offsets(channel) for channel in ("b", "a:k", "a:")] == [[1], [1], [1]]


@pytest.mark.parametrize(
    ("options", "skip_history"), [(NO_LOG, False), (LOG, True)], ids=["no log", "skip_history"]
)
async def test_a_key_counts_without_a_log_too(
    node: Node, options: ChannelOptions, skip_history: bool
) -> None:
    """There the first answer has no position."""
    await node.broker.subscribe("news")
    for number in (1, 2):
        draft = NewPublication(Raw(b"%d" % number), skip_history=skip_history, idempotency_key="k")
        assert await node.broker.publish("news", draft, options) == NO_POSITION
    await node.catch_up()
    assert node.handler.payloads("news") == [b"1"]


async def test_of_concurrent_publications_with_one_key_the_first_counts(node: Node) -> None:
    """The check and the publication are one step."""
    await node.broker.subscribe("news")
    positions = await asyncio.gather(*(node.broker.publish("news", keyed(n), LOG) for n in range(20)))
    assert len(set(positions)) == 1
    await node.catch_up()
    assert node.handler.payloads("news") == [b"0"]


async def test_a_key_outlives_the_history(node: Node) -> None:
    """Removing what was kept makes nothing publishable again."""
    first = await node.broker.publish("news", keyed(1), LOG)
    await node.broker.remove_history("news")
    assert await node.broker.publish("news", keyed(1), LOG) == first


async def test_an_outdated_version_is_an_answer_as_well(node: Node) -> None:
    """What was not published the first time is not published the second time either."""
    await node.broker.publish("news", NewPublication(Raw(b"1"), version=5), LOG)
    outdated = NewPublication(Raw(b"2"), version=4, idempotency_key="k")
    top = await node.broker.publish("news", outdated, LOG)
    await node.broker.publish("news", NewPublication(Raw(b"3"), version=6), LOG)
    assert await node.broker.publish("news", outdated, LOG) == top == (1, top.epoch)
