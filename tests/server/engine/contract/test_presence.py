"""The presence store: which clients are in a channel."""

import asyncio

from msgspec import Raw

from tocsin_server.engine.presence import PresenceStore
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
