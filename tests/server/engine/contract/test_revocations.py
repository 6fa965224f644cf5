"""The revocation store: what is kept, and which nodes learn it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.server.engine.contract.harness import Harness, Node, running
from tests.server.engine.recording_handler import RecordingHandler
from tocsin_server.core.revocations import Revocation
from tocsin_server.errors import EngineError

TOMORROW = time.time() + 86400
REVOCATIONS = [
    Revocation(TOMORROW, token_id="t1"),
    Revocation(TOMORROW + 0.5, token_id='a "quoted" id, ü'),
    Revocation(TOMORROW, user="42", issued_before=1_700_000_000.25),
    Revocation(2.0**40, user="42", channel="news", issued_before=2.0**40),
]


@pytest.mark.parametrize("revocation", REVOCATIONS, ids=["token", "quotes", "user", "channel"])
async def test_a_revocation_is_handed_over_unchanged(node: Node, revocation: Revocation) -> None:
    """When `add` returns, the node that added it has it."""
    await node.engine.revocations.add(revocation)
    assert revocation in node.handler.revocations


@asynccontextmanager
async def restarted(harness: Harness, node: Node) -> AsyncIterator[RecordingHandler]:
    """The handler of an engine that has started over the store of a node that has stopped."""
    await node.engine.stop()
    engine, handler = harness.reopened(node.engine), RecordingHandler("n9")
    await engine.start(handler)
    try:
        yield handler
    finally:
        await engine.stop()


async def test_an_engine_that_starts_hands_over_everything_that_is_kept(harness: Harness, node: Node) -> None:
    """So revocations outlive a node that stops and starts over the same store."""
    for revocation in REVOCATIONS:
        await node.engine.revocations.add(revocation)
    async with restarted(harness, node) as handler:
        assert sorted(handler.revocations, key=str) == sorted(REVOCATIONS, key=str)


async def test_a_running_node_learns_what_another_node_adds(node: Node, other_node: Node) -> None:
    await other_node.engine.revocations.add(REVOCATIONS[0])
    await node.handler.until(lambda: REVOCATIONS[0] in node.handler.revocations)


async def test_a_node_that_starts_later_learns_what_was_added_before(
    harness: Harness, node: Node, other_node: Node
) -> None:
    """Also if the node that added it has stopped."""
    await other_node.engine.revocations.add(REVOCATIONS[0])
    await other_node.engine.stop()
    async with running(harness, "n3") as third:
        assert third.handler.revocations == [REVOCATIONS[0]]


async def test_expired_revocations_are_not_kept(harness: Harness, node: Node) -> None:
    """However many are added. Those that have not expired stay."""
    await node.engine.revocations.add(REVOCATIONS[0])
    for number in range(300):
        await node.engine.revocations.add(Revocation(time.time() - 3600, token_id=f"expired {number}"))
    async with restarted(harness, node) as handler:
        assert REVOCATIONS[0] in handler.revocations
        assert len(handler.revocations) <= 130


async def test_a_stopped_engine_accepts_no_revocation(node: Node) -> None:
    await node.engine.stop()
    with pytest.raises(EngineError):
        await node.engine.revocations.add(REVOCATIONS[0])
