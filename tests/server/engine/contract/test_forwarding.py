"""Forwarding: commands of an emulated connection, on their way to the node that has it."""

import asyncio

import pytest

from tests.server.engine.contract.harness import Harness, Node, running

SESSION, OTHER = b"s" * 16, b"t" * 16


async def test_commands_for_this_node_reach_its_handler(node: Node) -> None:
    """Unchanged, and the answer says whether it has the session."""
    node.handler.sessions.add(SESSION)
    assert await node.engine.forwarding.forward("n1", SESSION, b'{"id":1}\n\xff\0') is True
    assert await node.engine.forwarding.forward("n1", OTHER, b"x") is False
    assert node.handler.forwarded == [(SESSION, b'{"id":1}\n\xff\0'), (OTHER, b"x")]


@pytest.mark.parametrize("uid", ["gone", "n", "", "*", "a b", "{n1}", "n1:x"])
async def test_a_node_that_does_not_exist_has_no_session(node: Node, uid: str) -> None:
    """The answer comes at once."""
    node.handler.sessions.add(SESSION)
    assert await node.engine.forwarding.forward(uid, SESSION, b"x") is False
    assert not node.handler.forwarded


async def test_commands_reach_the_other_node_alone(node: Node, other_node: Node) -> None:
    """From either of them."""
    for each in (node, other_node):
        each.handler.sessions.add(SESSION)
    assert await node.engine.forwarding.forward("n2", SESSION, b"to n2") is True
    assert await other_node.engine.forwarding.forward("n1", SESSION, b"to n1") is True
    assert await node.engine.forwarding.forward("n2", OTHER, b"to nothing") is False
    assert node.handler.forwarded == [(SESSION, b"to n1")]
    assert other_node.handler.forwarded == [(SESSION, b"to n2"), (OTHER, b"to nothing")]


async def test_concurrent_commands_of_a_node_keep_their_order(node: Node, other_node: Node) -> None:
    """Each arrives once, large ones too."""
    other_node.handler.sessions.add(SESSION)
    sent = [b"%d" % number * (1 if number % 10 else 30_000) for number in range(100)]
    forward = node.engine.forwarding.forward
    assert all(await asyncio.gather(*(forward("n2", SESSION, data) for data in sent)))
    assert [data for _, data in other_node.handler.forwarded] == sent


async def test_a_node_that_stopped_has_no_session(harness: Harness, node: Node, other_node: Node) -> None:
    """The answer comes at once."""
    async with running(harness, "n3") as third:
        third.handler.sessions.add(SESSION)
        assert await node.engine.forwarding.forward("n3", SESSION, b"x") is True
    assert await node.engine.forwarding.forward("n3", SESSION, b"x") is False
    assert len(third.handler.forwarded) == 1
