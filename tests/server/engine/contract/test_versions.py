"""Versions: a channel with a log publishes only what is newer than what it published last (protocol §14)."""

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import LOG, NO_LOG, Node, publication
from tocsin_server.engine.broker import TOP_ONLY, Broker, NewPublication


def versioned(version: int, version_epoch: str = "") -> NewPublication:
    return NewPublication(Raw(b"%d" % version), version=version, version_epoch=version_epoch)


@pytest.mark.parametrize("version", [1, 4, 5])
async def test_an_outdated_version_is_not_published(node: Node, version: int) -> None:
    """The answer is the top, and nobody hears of it."""
    await node.broker.subscribe("news")
    top = await node.broker.publish("news", versioned(5), LOG)
    assert await node.broker.publish("news", versioned(version), LOG) == top
    await node.catch_up()
    assert node.handler.payloads("news") == [b"5"]


async def test_a_newer_version_is_published(broker: Broker) -> None:
    """Versions may leave numbers out, and be as large as the wire allows."""
    for offset, version in enumerate((5, 6, 100, 2**63 - 1), start=1):
        assert (await broker.publish("news", versioned(version), LOG)).offset == offset
    assert (await broker.publish("news", versioned(2**63 - 2), LOG)).offset == 4


async def test_another_version_epoch_begins_anew(broker: Broker) -> None:
    """Versions compare only within one; the log remembers no more than the last."""
    assert (await broker.publish("news", versioned(5, "a"), LOG)).offset == 1
    assert (await broker.publish("news", versioned(5, "b"), LOG)).offset == 2
    assert (await broker.publish("news", versioned(4, "b"), LOG)).offset == 2
    assert (await broker.publish("news", versioned(1, "a"), LOG)).offset == 3
    assert (await broker.publish("news", versioned(2, "a"), LOG)).offset == 4


async def test_a_version_without_an_epoch_compares_with_any(broker: Broker) -> None:
    """As in Centrifugo."""
    await broker.publish("news", versioned(5, "a"), LOG)
    assert (await broker.publish("news", versioned(5), LOG)).offset == 1
    assert (await broker.publish("news", versioned(6), LOG)).offset == 2


async def test_a_publication_without_a_version_is_always_published(broker: Broker) -> None:
    """And leaves the last version as it was."""
    await broker.publish("news", versioned(5), LOG)
    assert (await broker.publish("news", publication(1), LOG)).offset == 2
    assert (await broker.publish("news", versioned(5), LOG)).offset == 2


async def test_versions_outlive_the_history(broker: Broker) -> None:
    """Like the top."""
    await broker.publish("news", versioned(5), LOG)
    await broker.remove_history("news")
    assert (await broker.publish("news", versioned(5), LOG)).offset == 1


async def test_without_a_log_there_are_no_versions(node: Node) -> None:
    """Everything is announced; what skips the log of a channel leaves its version alone."""
    await node.broker.subscribe("news")
    for version in (5, 4):
        await node.broker.publish("news", versioned(version), NO_LOG)
    await node.broker.publish("news", NewPublication(Raw(b"9"), version=9, skip_history=True), LOG)
    await node.broker.publish("news", versioned(1), LOG)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"5", b"4", b"9", b"1"]
    assert (await node.broker.read_history("news", TOP_ONLY, LOG)).top.offset == 1
