"""Versions: a channel with history publishes only newer versions than its last one (docs/protocol.md §14)."""

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import HISTORY, NO_HISTORY, Node, publication
from tocsin_server.engine.broker import TOP_ONLY, Broker, NewPublication


def versioned(version: int, version_epoch: str = "") -> NewPublication:
    return NewPublication(Raw(b"%d" % version), version=version, version_epoch=version_epoch)


@pytest.mark.parametrize("version", [1, 4, 5])
async def test_an_outdated_version_is_not_published(node: Node, version: int) -> None:
    """The result is the top."""
    await node.broker.subscribe("news")
    top = await node.broker.publish("news", versioned(5), HISTORY)
    assert await node.broker.publish("news", versioned(version), HISTORY) == top
    await node.catch_up()
    assert node.handler.payloads("news") == [b"5"]


async def test_a_newer_version_is_published(broker: Broker) -> None:
    """Versions may skip numbers, and be as large as the protocol allows."""
    for offset, version in enumerate((5, 6, 100, 2**63 - 1), start=1):
        assert (await broker.publish("news", versioned(version), HISTORY)).offset == offset
    assert (await broker.publish("news", versioned(2**63 - 2), HISTORY)).offset == 4


async def test_another_version_epoch_starts_over(broker: Broker) -> None:
    """Versions compare only within one epoch. The history keeps only the last version."""
    assert (await broker.publish("news", versioned(5, "a"), HISTORY)).offset == 1
    assert (await broker.publish("news", versioned(5, "b"), HISTORY)).offset == 2
    assert (await broker.publish("news", versioned(4, "b"), HISTORY)).offset == 2
    assert (await broker.publish("news", versioned(1, "a"), HISTORY)).offset == 3
    assert (await broker.publish("news", versioned(2, "a"), HISTORY)).offset == 4


async def test_a_version_without_an_epoch_compares_with_any_epoch(broker: Broker) -> None:
    """As in Centrifugo."""
    await broker.publish("news", versioned(5, "a"), HISTORY)
    assert (await broker.publish("news", versioned(5), HISTORY)).offset == 1
    assert (await broker.publish("news", versioned(6), HISTORY)).offset == 2


async def test_a_publication_without_a_version_is_always_published(broker: Broker) -> None:
    """The last version stays unchanged."""
    await broker.publish("news", versioned(5), HISTORY)
    assert (await broker.publish("news", publication(1), HISTORY)).offset == 2
    assert (await broker.publish("news", versioned(5), HISTORY)).offset == 2


async def test_the_last_version_outlives_removed_history(broker: Broker) -> None:
    """As the top does."""
    await broker.publish("news", versioned(5), HISTORY)
    await broker.remove_history("news")
    assert (await broker.publish("news", versioned(5), HISTORY)).offset == 1


async def test_versions_have_no_effect_without_history(node: Node) -> None:
    """Every publication is received. One that skips history leaves the last version unchanged."""
    await node.broker.subscribe("news")
    for version in (5, 4):
        await node.broker.publish("news", versioned(version), NO_HISTORY)
    await node.broker.publish("news", NewPublication(Raw(b"9"), version=9, skip_history=True), HISTORY)
    await node.broker.publish("news", versioned(1), HISTORY)
    await node.catch_up()
    assert node.handler.payloads("news") == [b"5", b"4", b"9", b"1"]
    assert (await node.broker.read_history("news", TOP_ONLY, HISTORY)).top.offset == 1
