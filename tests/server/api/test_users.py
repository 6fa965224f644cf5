"""disconnect, unsubscribe, subscribe, refresh: control of a user's connections."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.server.api.conftest import Served
from tests.support.tokens import connection_token

pytestmark = pytest.mark.asyncio(loop_scope="module")

Name = Callable[[str], str]


async def test_disconnect_closes_all_connections_of_a_user(api: Served) -> None:
    """The code is 3503. Connections of other users stay open."""
    ann, ben = connection_token("ann"), connection_token("ben")
    async with (
        api.client(token=ann) as one,
        api.client(token=ann) as two,
        api.client(token=ben) as other,
    ):
        assert await api.call("disconnect", user="ann") == {"result": {}}
        assert await one.closed() == await two.closed() == (3503, "force disconnect")
        await other.call("publish", channel="plain", data=1)


async def test_disconnect_accepts_a_reason_and_a_whitelist(api: Served) -> None:
    """Connections on the whitelist stay open, and so do those of another client id."""
    token = connection_token("ann")
    async with api.client(token=token) as kept, api.client(token=token) as closed:
        await api.result("disconnect", user="ann", client="another")
        why = {"code": 4242, "reason": "because"}
        await api.result("disconnect", user="ann", whitelist=[kept.client], disconnect=why)
        assert await closed.closed() == (4242, "because")
        await api.result("disconnect", user="ann", client=kept.client)
        assert await kept.closed() == (3503, "force disconnect")


async def test_a_reason_of_123_bytes_arrives_unchanged(api: Served) -> None:
    """A close frame has room for so many bytes beside the code."""
    reason = "ü" * 61 + "!"
    async with api.client(token=connection_token("ann")) as closed:
        await api.result("disconnect", user="ann", disconnect={"code": 4999, "reason": reason})
        assert await closed.closed() == (4999, reason)


@pytest.mark.parametrize(
    ("why", "detail"),
    [
        ({"code": 2999, "reason": "x"}, "expected `int` >= 3000 at `$.disconnect.code`"),
        ({"code": 5000, "reason": "x"}, "expected `int` <= 4999 at `$.disconnect.code`"),
        ({"code": 4000, "reason": ""}, "expected `str` of length >= 1 at `$.disconnect.reason`"),
        ({"code": 4000, "reason": "ü" * 62}, "expected `reason` of at most 123 bytes at `$.disconnect`"),
        ({"code": 4000}, "object missing required field `reason` at `$.disconnect`"),
    ],
)
async def test_a_disconnect_that_cannot_be_sent_is_refused(
    api: Served, why: dict[str, Any], detail: str
) -> None:
    """The code must be one for applications. The reason must not be empty, and must fit a close frame."""
    assert await api.error("disconnect", user="ann", disconnect=why) == (107, f"bad request: {detail}")


async def test_a_call_with_a_session_id_does_nothing(api: Served) -> None:
    """No connection has a session id."""
    async with api.client(token=connection_token("ann")) as kept:
        await api.result("disconnect", user="ann", session="s")
        await kept.call("publish", channel="plain", data=1)


async def test_subscribe_subscribes_a_users_connections(api: Served, channel: Name) -> None:
    """The push to the client has `data`, and its presence entry has `info`. Both may be in base64."""
    name, encoded = channel("open"), channel("open")
    async with api.client(token=connection_token("ann")) as ann:
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
    """`override` switches off for one user what the namespace switches on."""
    name = channel("open")
    async with api.client(token=connection_token("ann")) as ann:
        await api.result("subscribe", user="ann", channel=name, override={"force_recovery": {"value": False}})
        assert await ann.push("subscribe") == {}


async def test_subscribe_can_recover(api: Served, channel: Name) -> None:
    """Publications after the position follow the push, before live publications."""
    name = channel("open")
    positions = [await api.result("publish", channel=name, data=n) for n in range(3)]
    async with api.client(token=connection_token("ann")) as ann:
        await api.result("subscribe", user="ann", channel=name, recover_since=positions[0])
        await ann.push("subscribe")
        await api.result("publish", channel=name, data=3)
        assert [(await ann.push("pub"))["data"] for _ in range(3)] == [1, 2, 3]


async def test_a_subscription_can_expire(api: Served, channel: Name) -> None:
    """If `expire_at` is long past, the client gets the push, and is then disconnected."""
    name = channel("open")
    async with api.client(token=connection_token("ann")) as ann:
        await api.result("subscribe", user="ann", channel=name, expire_at=int(time.time()) - 60)
        await ann.push("subscribe")
        assert await ann.closed() == (3006, "subscription expired")


async def test_unsubscribe_ends_one_subscription_or_all(api: Served, channel: Name) -> None:
    """The code is 2000. Other users' subscriptions stay."""
    first, second = channel("open"), channel("open")
    async with api.client(token=connection_token("ann")) as ann, api.client() as other:
        for name in (first, second):
            await ann.call("subscribe", channel=name)
        await other.call("subscribe", channel=first)
        await api.result("unsubscribe", user="ann", channel=first)
        assert await ann.push("unsubscribe") == {"code": 2000, "reason": "server unsubscribe"}
        await api.result("unsubscribe", user="ann")
        assert (await ann.next())["push"]["channel"] == second
        await api.result("publish", channel=first, data=1)
        assert (await other.push("pub"))["data"] == 1


async def test_refresh_changes_when_a_connection_expires(api: Served) -> None:
    """The client is told the remaining seconds. 0 means that the connection does not expire."""
    async with api.client(token=connection_token("ann")) as ann:
        await api.result("refresh", user="ann", expire_at=int(time.time()) + 100)
        push = await ann.push("refresh")
        assert (push["expires"], 95 <= push["ttl"] <= 100) == (True, True)
        await api.result("refresh", user="ann", client=ann.client)
        assert await ann.push("refresh") == {}


async def test_refresh_can_expire_a_connection(api: Served) -> None:
    """The code is 3005: the client reconnects with a fresh token."""
    async with api.client(token=connection_token("ann")) as ann:
        await api.result("refresh", user="ann", expired=True)
        assert await ann.closed() == (3005, "connection expired")


@pytest.mark.parametrize("method", ["disconnect", "unsubscribe", "subscribe", "refresh"])
async def test_a_user_without_connections_is_no_error(api: Served, method: str) -> None:
    """The result is the same as for a user with connections."""
    assert await api.call(method, user="absent", channel="plain") == {"result": {}}


async def test_a_revoked_token_ends_its_connection_and_opens_no_other(api: Served) -> None:
    """By its id, and by its user, alone and in a batch."""
    token = connection_token("ann", jti="t1")
    async with api.client(token=token) as ann, api.client(token=connection_token("bob")) as bob:
        await api.result("revoke_token", uid="t1")
        assert await ann.closed() == (3005, "connection expired")
        commands = [{"invalidate_user_tokens": {"user": "bob"}}, {"revoke_token": {"uid": "t2"}}]
        replies = (await api.call("batch", commands=commands))["replies"]
        assert replies == [{"invalidate_user_tokens": {}}, {"revoke_token": {}}]
        assert await bob.closed() == (3005, "connection expired")
    with pytest.raises(KeyError, match="connect"):  # the reply has an error in place of a result
        async with api.client(token=token):
            pass


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("revoke_token", {"uid": "t", "expire_at": 1}, 107),
        ("revoke_token", {"uid": ""}, 107),
        ("revoke_token", {"uid": "x" * 1025}, 107),
        ("revoke_token", {}, 107),
        ("invalidate_user_tokens", {"user": ""}, 107),
        ("invalidate_user_tokens", {"user": "ann", "issued_before": -1}, 107),
        ("invalidate_user_tokens", {"user": "ann", "channel": "nowhere:1"}, 102),
    ],
)
async def test_an_invalid_revocation_is_an_error(
    api: Served, method: str, request_: dict[str, object], code: int
) -> None:
    assert (await api.error(method, **request_))[0] == code


@pytest.mark.parametrize("method", ["unsubscribe", "subscribe"])
async def test_an_invalid_channel_is_an_error(api: Served, method: str) -> None:
    """It is also an error for a user without connections."""
    assert (await api.error(method, user="absent", channel="nowhere:1"))[0] == 102
    assert (await api.error(method, user="absent", channel="x" * 256))[0] == 107
