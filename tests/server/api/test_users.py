"""disconnect, unsubscribe, subscribe, refresh: what is done to the connections of a user."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.api.conftest import Served
from tests.support.tokens import connection_token

pytestmark = pytest.mark.asyncio(loop_scope="module")

Name = Callable[[str], str]


async def test_disconnect_sends_a_user_away_for_good(api: Served) -> None:
    """All connections of that user and nobody else's, with 3503."""
    ann, ben = connection_token("ann"), connection_token("ben")
    async with (
        api.listener(token=ann) as one,
        api.listener(token=ann) as two,
        api.listener(token=ben) as other,
    ):
        assert await api.call("disconnect", user="ann") == {"result": {}}
        assert await one.closed() == await two.closed() == (3503, "force disconnect")
        await other.call("publish", channel="plain", data=1)


async def test_disconnect_can_say_why_and_spare_some(api: Served) -> None:
    """Code and reason as given; the whitelist stays, and so does who is not the client meant."""
    token = connection_token("ann")
    async with api.listener(token=token) as kept, api.listener(token=token) as gone:
        await api.result("disconnect", user="ann", client="another")
        why = {"code": 4242, "reason": "because"}
        await api.result("disconnect", user="ann", whitelist=[kept.client], disconnect=why)
        assert await gone.closed() == (4242, "because")
        await api.result("disconnect", user="ann", client=kept.client)
        assert await kept.closed() == (3503, "force disconnect")


async def test_a_reason_of_123_bytes_arrives_whole(api: Served) -> None:
    """As much as a close frame holds beside the code."""
    reason = "ü" * 61 + "!"
    async with api.listener(token=connection_token("ann")) as gone:
        await api.result("disconnect", user="ann", disconnect={"code": 4999, "reason": reason})
        assert await gone.closed() == (4999, reason)


@pytest.mark.parametrize(
    ("why", "complaint"),
    [
        ({"code": 2999, "reason": "x"}, "expected `int` >= 3000 at `$.disconnect.code`"),
        ({"code": 5000, "reason": "x"}, "expected `int` <= 4999 at `$.disconnect.code`"),
        ({"code": 4000, "reason": ""}, "expected `str` of length >= 1 at `$.disconnect.reason`"),
        ({"code": 4000, "reason": "ü" * 62}, "expected `reason` of at most 123 bytes at `$.disconnect`"),
        ({"code": 4000}, "object missing required field `reason` at `$.disconnect`"),
    ],
)
async def test_a_disconnect_that_cannot_be_sent_is_refused(
    api: Served, why: dict[str, Any], complaint: str
) -> None:
    """Codes applications may use, and a reason that is there and fits a close frame."""
    assert await api.error("disconnect", user="ann", disconnect=why) == (107, f"bad request: {complaint}")


async def test_a_session_id_is_nobodys(api: Served) -> None:
    """Since no transport gives any, a command that names one does nothing, rather than too much."""
    async with api.listener(token=connection_token("ann")) as kept:
        await api.result("disconnect", user="ann", session="s")
        await kept.call("publish", channel="plain", data=1)


async def test_subscribe_makes_the_user_hear_a_channel(api: Served, channel: Name) -> None:
    """Told with a push that carries `data`; present there with `info`; base64 counts as well."""
    name, encoded = channel("open"), channel("open")
    async with api.listener(token=connection_token("ann")) as ann:
        await api.result("subscribe", user="ann", channel=name, info={"seat": 1}, data=[2])
        push = await ann.push("subscribe")
        assert (push["data"], push["positioned"], push["recoverable"]) == ([2], True, True)
        await api.result("subscribe", user="ann", channel=encoded, b64info="eyJhIjoxfQ==", b64data="MQ==")
        assert (await ann.push("subscribe"))["data"] == 1
        presences = [(await api.result("presence", channel=each))["presence"] for each in (name, encoded)]
        await api.result("publish", channel=name, data=3)
        assert (await ann.push("pub"))["data"] == 3
    assert [presence[ann.client]["chan_info"] for presence in presences] == [{"seat": 1}, {"a": 1}]


async def test_subscribe_can_change_the_options_of_a_channel(api: Served, channel: Name) -> None:
    """`override` takes from one connection what the namespace gives to all."""
    name = channel("open")
    async with api.listener(token=connection_token("ann")) as ann:
        await api.result("subscribe", user="ann", channel=name, override={"force_recovery": {"value": False}})
        assert await ann.push("subscribe") == {}


async def test_subscribe_can_recover(api: Served, channel: Name) -> None:
    """What was published since the position comes after the push, before what is live."""
    name = channel("open")
    positions = [await api.result("publish", channel=name, data=n) for n in range(3)]
    async with api.listener(token=connection_token("ann")) as ann:
        await api.result("subscribe", user="ann", channel=name, recover_since=positions[0])
        await ann.push("subscribe")
        await api.result("publish", channel=name, data=3)
        assert [(await ann.push("pub"))["data"] for _ in range(3)] == [1, 2, 3]


async def test_subscribe_can_be_for_some_time(api: Served, channel: Name) -> None:
    """When `expire_at` has long passed, the connection is told of the subscription, then ended."""
    name = channel("open")
    async with api.listener(token=connection_token("ann")) as ann:
        await api.result("subscribe", user="ann", channel=name, expire_at=int(time.time()) - 60)
        await ann.push("subscribe")
        assert await ann.closed() == (3006, "subscription expired")


async def test_unsubscribe_ends_one_subscription_or_all(api: Served, channel: Name) -> None:
    """With code 2000, which tells clients to stay away; nobody else's."""
    first, second = channel("open"), channel("open")
    async with api.listener(token=connection_token("ann")) as ann, api.listener() as other:
        for name in (first, second):
            await ann.call("subscribe", channel=name)
        await other.call("subscribe", channel=first)
        await api.result("unsubscribe", user="ann", channel=first)
        assert await ann.push("unsubscribe") == {"code": 2000, "reason": "server unsubscribe"}
        await api.result("unsubscribe", user="ann")
        assert (await ann.next())["push"]["channel"] == second
        await api.result("publish", channel=first, data=1)
        assert (await other.push("pub"))["data"] == 1


async def test_refresh_moves_the_end_of_a_connection(api: Served) -> None:
    """The client is told the seconds it has; 0 means for ever."""
    async with api.listener(token=connection_token("ann")) as ann:
        await api.result("refresh", user="ann", expire_at=int(time.time()) + 100)
        push = await ann.push("refresh")
        assert (push["expires"], 95 <= push["ttl"] <= 100) == (True, True)
        await api.result("refresh", user="ann", client=ann.client)
        assert await ann.push("refresh") == {}


async def test_refresh_can_expire_a_connection(api: Served) -> None:
    """3005: it comes back with a fresh token."""
    async with api.listener(token=connection_token("ann")) as ann:
        await api.result("refresh", user="ann", expired=True)
        assert await ann.closed() == (3005, "connection expired")


@pytest.mark.parametrize("method", ["disconnect", "unsubscribe", "subscribe", "refresh"])
async def test_a_user_who_is_not_there_is_no_error(api: Served, method: str) -> None:
    """The result is empty, as it would be."""
    assert await api.call(method, user="nobody", channel="plain") == {"result": {}}


@pytest.mark.parametrize("method", ["unsubscribe", "subscribe"])
async def test_a_channel_that_cannot_be_is_an_error(api: Served, method: str) -> None:
    """Also when nobody is there who would notice."""
    assert (await api.error(method, user="nobody", channel="nowhere:1"))[0] == 102
    assert (await api.error(method, user="nobody", channel="x" * 256))[0] == 107
