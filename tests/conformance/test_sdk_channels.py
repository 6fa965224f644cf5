"""Official SDKs in a channel: publications, presence, history, joins and leaves (protocol §4, §5)."""

from collections.abc import Callable

import pytest

from tests.conformance.conftest import NewSdk
from tests.conformance.sdks.contract import Sdk
from tests.support.api import Api
from tests.support.refusal import Refused
from tests.support.server import Server
from tests.support.tokens import connection_token
from tests.support.wire_client import connect_wire

Name = Callable[[str], str]


async def subscribed(sdk: Sdk, server: Server, *channels: str, user: str = "") -> str:
    """Connect (as this user) and subscribe. Returns the client id."""
    await sdk.connect(server.websocket_url, token=connection_token(user) if user else "")
    me: str = (await sdk.events.next("connected"))["client"]
    for name in channels:
        await sdk.subscribe(name)
        await sdk.events.next("subscribed")
    return me


async def test_a_publication_of_a_client_reaches_every_subscriber(
    server: Server, new_sdk: NewSdk, channel: Name
) -> None:
    """The publisher receives it too. Its `info` names the publisher."""
    news = channel("open")
    ann, bob = await new_sdk(), await new_sdk()
    ann_id = await subscribed(ann, server, news, user="ann")
    await subscribed(bob, server, news)
    await ann.publish(news, {"text": "grüße ✓", "list": [1, 2.5, None, True]})
    for subscriber in (ann, bob):
        received = await subscriber.events.next("publication")
        assert received["data"] == {"text": "grüße ✓", "list": [1, 2.5, None, True]}
        assert received["offset"] == 1
        assert (received["info"]["user"], received["info"]["client"]) == ("ann", ann_id)


async def test_a_publication_of_the_back_end_reaches_a_client(
    server: Server, sdk: Sdk, api: Api, channel: Name
) -> None:
    """It carries its tags, and no client's info."""
    news = channel("open")
    await subscribed(sdk, server, news)
    await api.publish(news, "text", tags={"kind": "greeting"})
    received = await sdk.events.next("publication")
    assert (received["data"], received["tags"]) == ("text", {"kind": "greeting"})
    assert received.get("info") is None


@pytest.mark.parametrize("data", ["text", 0, False, [], {}, [1, {"a": None}], {"text": "line\nline \u2028"}])
async def test_any_json_arrives_as_it_was_sent(
    server: Server, sdk: Sdk, api: Api, channel: Name, data: object
) -> None:
    """`data` is JSON of any type, embedded unchanged."""
    news = channel("open")
    await subscribed(sdk, server, news)
    await api.call("publish", channel=news, data=data)
    assert (await sdk.events.next("publication"))["data"] == data


async def test_a_channel_without_history_has_no_offsets(
    server: Server, sdk: Sdk, api: Api, channel: Name
) -> None:
    """Its publications have no offset, and the subscription has no position."""
    await sdk.connect(server.websocket_url)
    await sdk.subscribe(news := channel("plain"))
    subscribed = await sdk.events.next("subscribed")
    assert (subscribed["recoverable"], subscribed["positioned"], subscribed["position"]) == (
        False,
        False,
        None,
    )
    await api.publish(news, {"n": 1})
    assert not (await sdk.events.next("publication")).get("offset")


async def test_presence_lists_connections_and_counts_users(
    server: Server, new_sdk: NewSdk, channel: Name
) -> None:
    """Presence lists each connection. The stats count connections, and each user once."""
    news = channel("open")
    ids = [await subscribed(await new_sdk(), server, news, user=user) for user in ("ann", "ann", "bob")]
    reader = await new_sdk()
    await subscribed(reader, server)
    presence = await reader.presence(news)
    assert {client: info["user"] for client, info in presence.items()} == dict(
        zip(ids, ["ann", "ann", "bob"], strict=True)
    )
    assert await reader.presence_stats(news) == {"clients": 3, "users": 2}


async def test_history_is_read_in_pages(server: Server, sdk: Sdk, api: Api, channel: Name) -> None:
    """`limit`, `since` and `reverse` page in both directions. Each page has the top."""
    news = channel("open")
    await api.publish_numbers(news, range(1, 8))
    await subscribed(sdk, server)
    first = await sdk.history(news, limit=3)
    assert [p["offset"] for p in first["publications"]] == [1, 2, 3]
    assert [p["data"] for p in first["publications"]] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert first["offset"] == 7

    since = {"offset": 3, "epoch": first["epoch"]}
    later = await sdk.history(news, limit=-1, since=since)
    assert [p["offset"] for p in later["publications"]] == [4, 5, 6, 7]
    newest = await sdk.history(news, limit=2, reverse=True)
    assert [p["offset"] for p in newest["publications"]] == [7, 6]
    older = await sdk.history(news, limit=-1, since=since, reverse=True)
    assert [p["offset"] for p in older["publications"]] == [2, 1]


async def test_history_with_limit_0_is_the_top(server: Server, sdk: Sdk, api: Api, channel: Name) -> None:
    news = channel("open")
    await api.publish_numbers(news, range(3))
    await subscribed(sdk, server)
    page = await sdk.history(news)
    assert (page["publications"], page["offset"]) == ([], 3)
    assert page["epoch"]


async def test_history_of_another_epoch_is_refused(server: Server, sdk: Sdk, channel: Name) -> None:
    """A position of a history that no longer exists is error 112."""
    await subscribed(sdk, server)
    with pytest.raises(Refused) as refused:
        await sdk.history(channel("open"), limit=1, since={"offset": 1, "epoch": "elsewhen"})
    assert refused.value.code == 112


async def test_a_subscriber_receives_joins_and_leaves(server: Server, new_sdk: NewSdk, channel: Name) -> None:
    """It gets its own join, the joins of others, and their leaves, with the client info."""
    news = channel("open")
    ann, bob = await new_sdk(), await new_sdk()
    ann_id = await subscribed(ann, server, news, user="ann")
    assert (await ann.events.next("join"))["info"]["client"] == ann_id
    bob_id = await subscribed(bob, server, news, user="bob")
    joined = await ann.events.next("join")
    assert (joined["info"]["user"], joined["info"]["client"]) == ("bob", bob_id)
    await bob.unsubscribe(news)
    assert (await ann.events.next("leave"))["info"]["client"] == bob_id
    await ann.unsubscribe(news)
    assert bob.events.of("leave") == []


async def test_joins_are_pushed_to_subscribers_that_requested_them(
    server: Server, new_sdk: NewSdk, channel: Name
) -> None:
    """Without `force_push_join_leave`, a subscriber must request joins, and have permission for presence."""
    news = channel("asked")
    requesting, other = await new_sdk(), await new_sdk()
    await requesting.connect(server.websocket_url, token=connection_token("requesting"))
    await requesting.subscribe(news, join_leave=True)
    await requesting.events.next("join")
    await subscribed(other, server, news, user="other")
    assert (await requesting.events.next("join"))["info"]["user"] == "other"
    assert other.events.of("join") == []


async def test_an_unsubscribed_client_receives_no_publications(
    server: Server, sdk: Sdk, api: Api, channel: Name
) -> None:
    """It is not present either."""
    news = channel("open")
    await subscribed(sdk, server, news)
    await sdk.unsubscribe(news)
    assert (await sdk.events.next("unsubscribed"))["code"] == 0
    async with connect_wire(server) as watcher:
        await watcher.call("subscribe", channel=news)
        await api.publish(news, {"n": 1})
        await watcher.push("pub", news)
    assert await api.call("presence_stats", channel=news) == {"num_clients": 0, "num_users": 0}
    assert sdk.events.of("publication") == []


async def test_rpc_is_not_available(server: Server, sdk: Sdk) -> None:
    """The server has no procedures."""
    await subscribed(sdk, server)
    with pytest.raises(Refused) as refused:
        await sdk.rpc("anything", {})
    assert refused.value.code == 108
