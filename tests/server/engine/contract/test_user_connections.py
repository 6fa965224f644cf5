"""Connections of users: counted exactly, on all nodes."""

import asyncio

import pytest

from tests.server.engine.contract.harness import Node
from tocsin_server.errors import TooManyConnections


async def is_added(node: Node, client: str, limit: int, user: str = "ann") -> bool:
    try:
        await node.engine.users.add(user, client, limit)
    except TooManyConnections:
        return False
    return True


@pytest.mark.parametrize("limit", [1, 2, 5])
async def test_a_user_has_exactly_as_many_connections_as_the_limit(node: Node, limit: int) -> None:
    """Also if all are made at once."""
    outcomes = await asyncio.gather(*(is_added(node, f"c{number}", limit) for number in range(limit + 3)))
    assert outcomes.count(True) == limit
    assert not await is_added(node, "late", limit)
    assert await is_added(node, "late", limit + 1)


async def test_a_removed_connection_makes_room(node: Node) -> None:
    """Once, however often it is removed."""
    assert await is_added(node, "c1", 1)
    for _ in range(2):
        await node.engine.users.remove("ann", "c1")
        await node.engine.users.remove("ann", "other")
    assert await is_added(node, "c2", 1)
    assert not await is_added(node, "c3", 1)


async def test_adding_a_connection_again_counts_once(node: Node) -> None:
    """At the limit as well."""
    for _ in range(3):
        assert await is_added(node, "c1", 1)
    assert not await is_added(node, "c2", 1)


@pytest.mark.parametrize("other", ["anna", "ann}", "{ann}", "", "}", "%", "ann:", "an\0n", "a" * 300])
async def test_users_have_their_own_connections(node: Node, other: str) -> None:
    """For any names."""
    assert await is_added(node, "c1", 1)
    assert await is_added(node, "c1", 1, other)
    assert not await is_added(node, "c2", 1, other)


async def test_connections_are_counted_on_all_nodes(node: Node, other_node: Node) -> None:
    """From either node."""
    assert await is_added(node, "c1", 2)
    assert await is_added(other_node, "c2", 2)
    for each in (node, other_node):
        assert not await is_added(each, "c3", 2)
    await node.engine.users.remove("ann", "c1")
    assert await is_added(other_node, "c3", 2)


async def test_a_node_that_stopped_gives_its_share_back(node: Node, other_node: Node) -> None:
    """Its connections no longer count."""
    assert await is_added(other_node, "c1", 2)
    assert await is_added(other_node, "c2", 2)
    assert not await is_added(node, "c3", 2)
    await other_node.engine.stop()
    outcomes = await asyncio.gather(*(is_added(node, f"d{number}", 2) for number in range(4)))
    assert outcomes.count(True) == 2
