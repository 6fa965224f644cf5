"""Subscribe and its push messages at the level of messages (protocol §4, §5, §11, §13)."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.api import Api
from tests.support.fossil import apply_delta
from tests.support.refusal import Refused
from tests.support.server import Server
from tests.support.timing import SOON
from tests.support.tokens import connection_token, seconds_from_now, subscription_token
from tests.support.wire_client import Close, WireClient, connect_wire

Name = Callable[[str], str]


async def code_of(wire: WireClient, method: str, **params: object) -> int:
    """The code with which this command is refused."""
    with pytest.raises(Refused) as refused:
        await wire.call(method, **params)
    return refused.value.code


async def test_a_recoverable_subscription_has_a_position(server: Server, api: Api, channel: Name) -> None:
    """The reply has the channel's top: offset and epoch."""
    news = channel("open")
    epoch = (await api.publish(news, {}))["epoch"]
    async with connect_wire(server) as wire:
        result = await wire.call("subscribe", channel=news)
    assert result == {"recoverable": True, "positioned": True, "offset": 1, "epoch": epoch}


async def test_a_new_channel_has_an_epoch(server: Server, channel: Name) -> None:
    """The epoch begins with the first use, not with the first publication."""
    news = channel("open")
    async with connect_wire(server) as one, connect_wire(server) as two:
        first = await one.call("subscribe", channel=news)
        second = await two.call("subscribe", channel=news)
    assert (first.get("offset", 0), first["epoch"]) == (0, second["epoch"])
    assert first["epoch"]


async def test_a_plain_subscription_has_an_empty_result(server: Server, channel: Name) -> None:
    async with connect_wire(server) as wire:
        assert await wire.call("subscribe", channel=channel("plain")) == {}


@pytest.mark.parametrize(
    ("namespace", "asked", "granted"),
    [
        ("asked", {}, set()),
        ("asked", {"recoverable": True}, {"recoverable"}),
        ("asked", {"positioned": True}, {"positioned"}),
        ("unasked", {"recoverable": True, "positioned": True}, set()),
    ],
)
async def test_positioning_is_granted_if_allowed_and_requested(
    server: Server, channel: Name, namespace: str, asked: dict[str, bool], granted: set[str]
) -> None:
    """Otherwise the subscription is a plain one."""
    async with connect_wire(server, token=connection_token("ann")) as wire:
        result = await wire.call("subscribe", channel=channel(namespace), **asked)
    assert granted <= {name for name, value in result.items() if value is True}
    assert bool(granted) == ("epoch" in result)


async def test_permission_for_history_includes_positions(server: Server, channel: Name) -> None:
    async with connect_wire(server) as wire:
        result = await wire.call("subscribe", channel=channel("readable"), recoverable=True)
    assert (result["recoverable"], bool(result["epoch"])) == (True, True)


async def test_the_join_comes_after_the_reply(server: Server, channel: Name) -> None:
    """A subscriber gets its own join after the reply to its subscribe, and never its own leave."""
    news = channel("open")
    async with connect_wire(server) as wire, connect_wire(server) as other:
        await wire.call("subscribe", channel=news)
        assert (await wire.push("join", news))["info"]["client"] == wire.client
        await other.call("subscribe", channel=news)
        await wire.call("unsubscribe", channel=news)
        assert (await other.push("leave", news))["info"]["client"] == wire.client
    assert "join" in wire.received[2]["push"]
    assert not any("leave" in message.get("push", {}) for message in wire.received)


async def test_a_second_subscription_is_refused(server: Server, channel: Name) -> None:
    """Error 105, whether the first was client-side or server-side. The first one continues."""
    mine, theirs = channel("plain"), channel("plain")
    async with connect_wire(server, token=connection_token("ann", channels=[theirs])) as wire:
        await wire.call("subscribe", channel=mine)
        assert await code_of(wire, "subscribe", channel=mine) == 105
        assert await code_of(wire, "subscribe", channel=theirs) == 105
        await wire.call("publish", channel=mine, data=1)
        assert (await wire.push("pub", mine))["data"] == 1


async def test_unsubscribe_always_succeeds(server: Server, api: Api, channel: Name) -> None:
    """From a channel never subscribed, twice, and from a server-side channel."""
    theirs = channel("plain")
    async with connect_wire(server, token=connection_token("ann", channels=[theirs])) as wire:
        for name in (channel("plain"), "nowhere:1", theirs, theirs):
            assert await wire.call("unsubscribe", channel=name) == {}
        await api.publish(theirs, 1)
        assert await wire.is_quiet()


@pytest.mark.parametrize("asked", [{"type": 1}, {"type": 4}])
async def test_other_kinds_of_subscription_are_not_available(
    server: Server, channel: Name, asked: dict[str, int]
) -> None:
    """Maps and shared polls belong to another product."""
    async with connect_wire(server) as wire:
        assert await code_of(wire, "subscribe", channel=channel("open"), **asked) in {103, 108}


async def test_delta_is_not_granted_where_it_is_not_allowed(server: Server, channel: Name) -> None:
    """A client that offers delta gets plain data, and no `delta` in its reply."""
    news = channel("open")
    async with connect_wire(server) as wire:
        assert "delta" not in await wire.call("subscribe", channel=news, delta="fossil")
        for text in ("one", "two"):
            await wire.call("publish", channel=news, data={"text": text})
            assert (await wire.push("pub", news))["data"] == {"text": text}


async def test_deltas_are_texts_after_a_subscribe_that_was_granted_them(
    server: Server, api: Api, channel: Name
) -> None:
    """The first publication is whole. The same client's next subscription begins with a whole one again."""
    deltas = channel("deltas")
    async with connect_wire(server) as wire, connect_wire(server) as plain:
        assert "delta" not in await plain.call("subscribe", channel=deltas)
        for first in (1, 3):
            assert (await wire.call("subscribe", channel=deltas, delta="fossil"))["delta"] is True
            base = b""
            for number in (first, first + 1):
                data = {"text": "Äpfel und Birnen " * 3, "n": number}
                await api.publish(deltas, data)
                assert (await plain.push("pub", deltas))["data"] == data
                publication = await wire.push("pub", deltas)
                text = publication["data"].encode()
                assert publication.get("delta", False) is (number != first)
                base = apply_delta(base, text) if publication.get("delta") else text
                assert json.loads(base) == data
            await wire.call("unsubscribe", channel=deltas)


async def test_a_back_end_decides_about_each_publication_where_the_namespace_does_not(
    server: Server, api: Api, channel: Name
) -> None:
    """With `delta`. A broadcast has it, too. History is not needed."""
    updates = channel("updates")
    data = {"text": "something that stays as it is", "n": 1}
    async with connect_wire(server) as wire:
        await wire.call("subscribe", channel=updates, delta="fossil")
        await api.publish(updates, data)
        await api.publish(updates, data)
        await api.publish(updates, data, delta=True)
        await api.call("broadcast", channels=[updates], data=data, delta=True)
        pushes = [await wire.push("pub", updates) for _ in range(4)]
        assert [push.get("delta", False) for push in pushes] == [False, False, True, True]


async def test_a_tags_filter_leaves_publications_out(server: Server, api: Api, channel: Name) -> None:
    """Live ones and recovered ones. They are no gap."""
    filtered = channel("filtered")
    tags_filter = {"key": "kind", "cmp": "eq", "val": "a"}

    async def publish(*kinds: str) -> None:
        for kind in kinds:
            await api.publish(filtered, kind, tags={"kind": kind})

    async with connect_wire(server) as wire:
        begun = await wire.call("subscribe", channel=filtered, tf=tags_filter)
        await publish("b", "a", "b", "a", "b")
        assert [(await wire.push("pub", filtered))["offset"] for _ in range(2)] == [2, 4]
        await wire.call("unsubscribe", channel=filtered)
        await publish("b", "a", "b")
        position = {"recover": True, "offset": 4, "epoch": begun["epoch"]}
        back = await wire.call("subscribe", channel=filtered, tf=tags_filter, **position)
        assert (back["recovered"], back["offset"]) == (True, 4)
        assert [missed["offset"] for missed in back["publications"]] == [7]
        await publish("b", "a")
        assert (await wire.push("pub", filtered))["offset"] == 10


async def test_a_tags_filter_is_refused_where_it_is_not_allowed(server: Server, channel: Name) -> None:
    """An error is better than publications that the client filters out."""
    async with connect_wire(server) as wire:
        tags_filter = {"key": "kind", "cmp": "eq", "val": "a"}
        assert await code_of(wire, "subscribe", channel=channel("open"), tf=tags_filter) == 107


async def test_the_subscribe_reply_has_the_tokens_time_to_live(server: Server, channel: Name) -> None:
    """`expires` and `ttl` of a token that expires. `expire_at` decouples it from `exp`."""
    in_a_minute = seconds_from_now(60)
    lives: list[tuple[dict[str, Any], bool]] = [
        ({"exp": in_a_minute}, True),
        ({"expire_at": in_a_minute}, True),
        ({"exp": in_a_minute, "expire_at": 0}, False),
        ({}, False),
    ]
    async with connect_wire(server, token=connection_token("ann")) as wire:
        for claims, expires in lives:
            news = channel("closed")
            token = subscription_token("ann", news, **claims)
            result = await wire.call("subscribe", channel=news, token=token)
            assert result.get("expires", False) is expires
            assert (50 < result.get("ttl", 0) <= 60) is expires


async def test_a_subscription_is_refreshed(server: Server, channel: Name) -> None:
    news = channel("closed")
    async with connect_wire(server, token=connection_token("ann")) as wire:
        short, long = (subscription_token("ann", news, exp=seconds_from_now(life)) for life in (30, 90))
        await wire.call("subscribe", channel=news, token=short)
        result = await wire.call("sub_refresh", channel=news, token=long)
    assert result["expires"] is True
    assert 80 < result["ttl"] <= 90


async def test_an_invalid_sub_refresh_is_refused(server: Server, channel: Name) -> None:
    """Not subscribed 103, no token 107, expired 109 or 110. Without a channel or with garbage it closes."""
    news = channel("closed")
    token = subscription_token("ann", news, exp=seconds_from_now(60))
    expired = subscription_token("ann", news, exp=seconds_from_now(-10))
    async with connect_wire(server, token=connection_token("ann")) as wire:
        assert await code_of(wire, "sub_refresh", channel=news, token=token) == 103
        await wire.call("subscribe", channel=news, token=token)
        assert await code_of(wire, "sub_refresh", channel=news, token="") == 107
        assert await code_of(wire, "sub_refresh", channel=news, token=expired) in {109, 110}
        await wire.send({"id": 50, "sub_refresh": {"channel": "", "token": token}})
        assert await wire.closed() == Close(3501, "bad request")
    async with connect_wire(server, token=connection_token("ann")) as wire:
        await wire.call("subscribe", channel=news, token=token)
        await wire.send({"id": 50, "sub_refresh": {"channel": news, "token": "garbage"}})
        assert await wire.closed() == Close(3500, "invalid token")


async def test_an_expired_subscription_ends(short_timeouts_server: Server, channel: Name) -> None:
    """Without a refresh the client gets an unsubscribe push with 2501: subscribe again, with a new token."""
    news = channel("closed")
    async with connect_wire(short_timeouts_server, token=connection_token("ann")) as wire:
        token = subscription_token("ann", news, exp=seconds_from_now(3))
        await wire.call("subscribe", channel=news, token=token)
        expired = await wire.push("unsubscribe", news)
        assert expired == {"code": 2501, "reason": "subscription expired"}
        await wire.call("subscribe", channel=news, token=subscription_token("ann", news))


async def test_an_expired_server_side_subscription_closes_the_connection(
    short_timeouts_server: Server, channel: Name
) -> None:
    """A client cannot refresh it: 3006, after which SDKs reconnect."""
    user = channel("user")
    async with (
        Api(short_timeouts_server) as api,
        connect_wire(short_timeouts_server, token=connection_token(user)) as wire,
    ):
        await api.call("subscribe", user=user, channel=channel("open"), expire_at=seconds_from_now(2))
        assert await wire.closed() == Close(3006, "subscription expired")


async def test_history_is_capped_for_clients(server: Server, api: Api, channel: Name) -> None:
    """A client gets at most 300 publications a page. A back end gets all."""
    long = channel("long")
    commands = [{"publish": {"channel": long, "data": n}} for n in range(310)]
    await api.post("batch", {"commands": commands})
    async with connect_wire(server) as wire:
        for limit in (-1, 400, 2**31 - 1):
            page = await wire.call("history", channel=long, limit=limit)
            assert [publication["offset"] for publication in page["publications"]] == list(range(1, 301))
            assert page["offset"] == 310
    assert len((await api.call("history", channel=long, limit=-1))["publications"]) == 310


async def test_history_expires(server: Server, api: Api, channel: Name) -> None:
    """After `history_ttl` without a publication the history is empty. Its position stays."""
    brief = channel("brief")
    first = await api.publish(brief, 1)
    async with connect_wire(server) as wire:
        for _ in range(int(SOON)):
            page = await wire.call("history", channel=brief, limit=-1)
            if not page["publications"]:
                break
            await wire.is_quiet()
        assert (page["publications"], page["offset"], page["epoch"]) == ([], 1, first["epoch"])
        recovered = await wire.call("subscribe", channel=brief, recover=True, **first)
        assert recovered["recovered"] is True
    assert (await api.publish(brief, 2))["offset"] == 2


async def test_a_publication_needs_data(server: Server, channel: Name) -> None:
    """Without `data` the error is 107."""
    async with connect_wire(server) as wire:
        assert await code_of(wire, "publish", channel=channel("open")) == 107


async def test_presence_follows_the_connection(server: Server, api: Api, channel: Name) -> None:
    """It begins with the subscribe reply, and ends with the unsubscribe or the socket."""
    news = channel("open")
    async with connect_wire(server) as watcher:
        await watcher.call("subscribe", channel=news)
        async with connect_wire(server, token=connection_token("ann")) as wire:
            await wire.call("subscribe", channel=news)
            presence = (await api.call("presence", channel=news))["presence"]
            assert presence[wire.client] == {"user": "ann", "client": wire.client}
            wire.connection.transport.abort()
            await watcher.push("leave", news)
        assert list((await api.call("presence", channel=news))["presence"]) == [watcher.client]
