"""The presence store: which clients are in a channel."""

import asyncio

import pytest
from msgspec import Raw

from tests.server.engine.contract.harness import Node
from tocsin_server.engine.presence import PresenceStore
from tocsin_server.errors import PresenceFull
from tocsin_server.protocol.messages import ClientInfo


async def test_an_unknown_channel_has_no_members(presence: PresenceStore) -> None:
    """It need not be created first."""
    assert dict(await presence.members("news")) == {}
    assert await presence.stats("news") == (0, 0)


async def test_members_are_found_by_client_id(presence: PresenceStore) -> None:
    """Their info arrives unchanged, byte for byte."""
    first = ClientInfo("42", "c1", Raw(b'{"n":1e999}'), Raw(b'"\\u00e9"'))
    second = ClientInfo("", "c2")
    await presence.add("news", first)
    await presence.add("news", second)
    assert dict(await presence.members("news")) == {"c1": first, "c2": second}


async def test_channels_have_their_own_members(presence: PresenceStore) -> None:
    """A client may be in several channels, and leaves each separately."""
    await presence.add("news", ClientInfo("42", "c1"))
    await presence.add("weather", ClientInfo("42", "c1"))
    await presence.remove("news", "c1")
    assert dict(await presence.members("news")) == {}
    assert list(await presence.members("weather")) == ["c1"]


async def test_adding_again_replaces_the_info(presence: PresenceStore) -> None:
    """A client has one presence entry."""
    await presence.add("news", ClientInfo("42", "c1", Raw(b"1")))
    await presence.add("news", ClientInfo("43", "c1", Raw(b"2")))
    assert dict(await presence.members("news")) == {"c1": ClientInfo("43", "c1", Raw(b"2"))}
    assert await presence.stats("news") == (1, 1)


async def test_removing_an_absent_client_does_nothing(presence: PresenceStore) -> None:
    """Neither for an unknown client nor for one that left before."""
    await presence.remove("news", "c1")
    await presence.add("news", ClientInfo("42", "c1"))
    await presence.remove("news", "c2")
    assert await presence.stats("news") == (1, 1)
    await presence.remove("news", "c1")
    await presence.remove("news", "c1")
    assert await presence.stats("news") == (0, 0)


async def test_stats_count_each_user_once_and_anonymous_users_as_one(presence: PresenceStore) -> None:
    """Every client is counted."""
    for client, user in enumerate(["42", "42", "43", "", ""]):
        await presence.add("news", ClientInfo(user, f"c{client}"))
    assert await presence.stats("news") == (5, 3)
    await presence.remove("news", "c0")
    assert await presence.stats("news") == (4, 3)
    await presence.remove("news", "c1")
    assert await presence.stats("news") == (3, 2)


async def test_members_that_were_read_do_not_change(presence: PresenceStore) -> None:
    """Later calls do not affect them."""
    await presence.add("news", ClientInfo("42", "c1"))
    members = await presence.members("news")
    await presence.add("news", ClientInfo("42", "c2"))
    await presence.remove("news", "c1")
    assert list(members) == ["c1"]


async def test_overlapping_calls_take_effect_in_their_order(presence: PresenceStore) -> None:
    """The last call determines the result."""
    info = ClientInfo("42", "c1")
    calls = [presence.add("news", info), presence.remove("news", "c1"), presence.add("news", info)]
    await asyncio.gather(*calls)
    assert list(await presence.members("news")) == ["c1"]
    await asyncio.gather(presence.add("news", info), presence.remove("news", "c1"))
    assert dict(await presence.members("news")) == {}


async def is_added(presence: PresenceStore, client: str, limit: int, channel: str = "news") -> bool:
    try:
        await presence.add(channel, ClientInfo("42", client), limit=limit)
    except PresenceFull:
        return False
    return True


@pytest.mark.parametrize("limit", [1, 3])
async def test_a_channel_has_exactly_as_many_entries_as_the_limit(
    presence: PresenceStore, limit: int
) -> None:
    """Also if all are added at once. An entry that exists can be replaced."""
    clients = [f"c{number}" for number in range(limit + 3)]
    outcomes = await asyncio.gather(*(is_added(presence, client, limit) for client in clients))
    assert outcomes.count(True) == limit
    added = [client for client, is_in in zip(clients, outcomes, strict=True) if is_in]
    assert sorted(await presence.members("news")) == added
    assert await presence.stats("news") == (limit, 1)
    assert await is_added(presence, added[0], limit)
    assert not await is_added(presence, "late", limit)
    assert await is_added(presence, "late", limit, "weather")
    await presence.remove("news", added[0])
    assert await is_added(presence, "late", limit)


async def test_the_entries_of_all_nodes_count(node: Node, other_node: Node) -> None:
    """A refused client leaves nothing behind."""
    assert await is_added(node.presence, "c1", 2)
    assert await is_added(other_node.presence, "c2", 2)
    for each in (node, other_node):
        assert not await is_added(each.presence, "c3", 2)
    await other_node.presence.remove("news", "c2")
    assert await is_added(node.presence, "c3", 2)
    assert sorted(await other_node.presence.members("news")) == ["c1", "c3"]
