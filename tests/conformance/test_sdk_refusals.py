"""Official SDKs are refused with the protocol's code, and their connection lives on (protocol §7, §13)."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conformance.sdks.contract import Sdk
from tests.support.api import Api
from tests.support.refusal import Refused
from tests.support.server import Server
from tests.support.tokens import connection_token

Name = Callable[[str], str]

REFUSED_SUBSCRIPTIONS = {
    "unknown namespace": ("nowhere:1", 102),
    "unknown namespace behind a dollar": ("$nowhere:1", 102),
    "not permitted": ("closed:1", 103),
    "token wanted": ("$open:1", 103),
    "another user's": ("limited:team#bob,carol", 103),
    "users where no users are": ("member:#bob", None),
    "name of 256 characters": ("open:" + "x" * 251, 107),
    "name of 300 characters": ("x" * 300, 107),
    "not ASCII": ("open:größe", 107),
    "regex mismatch": ("digits:12a", 107),
    "regex match": ("digits:123", None),
    "name of 255 characters": ("open:" + "x" * 250, None),
    "own channel": ("limited:team#ann,bob", None),
    "no namespace": ("lobby", None),
}


async def as_user(sdk: Sdk, server: Server, user: str = "") -> None:
    await sdk.connect(server.websocket_url, token=connection_token(user) if user else "")
    await sdk.events.next("connected")


async def code_of(asking: Awaitable[Any]) -> int | None:
    """The code of the refusal, or None where the server did what it was asked."""
    try:
        await asking
    except Refused as refused:
        return refused.code
    return None


@pytest.mark.parametrize(("name", "code"), REFUSED_SUBSCRIPTIONS.values(), ids=REFUSED_SUBSCRIPTIONS)
async def test_a_subscription_is_permitted_or_refused(
    server: Server, sdk: Sdk, name: str, code: int | None
) -> None:
    """Of user ann: what she may not subscribe to, and why, and what she may."""
    await as_user(sdk, server, "ann")
    await sdk.subscribe(name)
    if code is None:
        assert (await sdk.events.next("subscribed"))["channel"] == name
    else:
        assert (await sdk.events.next("unsubscribed"))["code"] == code
        await sdk.publish("open:afterwards", {})


async def test_the_nameless_are_refused_where_a_name_is_wanted(server: Server, sdk: Sdk) -> None:
    """`allow_subscribe_for_client` is for users; an anonymous client needs `_for_anonymous`."""
    await as_user(sdk, server)
    await sdk.subscribe("known:1")
    assert (await sdk.events.next("unsubscribed"))["code"] == 103


async def test_one_channel_cannot_be_had_twice(server: Server, sdk: Sdk, channel: Name) -> None:
    """A client-side subscription to a channel that the server subscribed already is error 105."""
    news = channel("open")
    await sdk.connect(server.websocket_url, token=connection_token("ann", channels=[news]))
    await sdk.events.next("server_subscribed")
    await sdk.subscribe(news)
    assert (await sdk.events.next("unsubscribed"))["code"] == 105


async def test_channels_past_the_limit_are_refused(impatient: Server, sdk: Sdk, channel: Name) -> None:
    """With a limit of ten channels the eleventh is error 106, and the ten keep working."""
    await as_user(sdk, impatient)
    names = [channel("open") for _ in range(11)]
    for name in names:
        await sdk.subscribe(name)
    await sdk.events.take("subscribed", 10)
    refused = await sdk.events.next("unsubscribed")
    assert (refused["channel"], refused["code"]) == (names[10], 106)
    await sdk.publish(names[0], {"n": 1})
    assert (await sdk.events.next("publication"))["channel"] == names[0]


@pytest.mark.parametrize(
    ("namespace", "publish", "history", "presence"),
    [
        ("nowhere", 102, 102, 102),
        ("closed", 103, 103, 103),
        ("plain", None, 108, 108),
        ("open", None, None, None),
    ],
)
async def test_each_method_is_permitted_or_refused(
    server: Server,
    sdk: Sdk,
    channel: Name,
    namespace: str,
    publish: int | None,
    history: int | None,
    presence: int | None,
) -> None:
    """Unknown namespace 102, not permitted 103, not kept 108."""
    await as_user(sdk, server)
    name = channel(namespace)
    assert await code_of(sdk.publish(name, {})) == publish
    assert await code_of(sdk.history(name, limit=1)) == history
    assert await code_of(sdk.presence(name)) == presence
    assert await code_of(sdk.presence_stats(name)) == presence


async def test_some_methods_are_for_subscribers(server: Server, sdk: Sdk, channel: Name) -> None:
    """`_for_subscriber` permits while the client is subscribed, and only then."""
    await as_user(sdk, server, "ann")
    club = channel("member")
    for code in (103, None):
        assert await code_of(sdk.publish(club, {})) == code
        assert await code_of(sdk.history(club, limit=1)) == code
        assert await code_of(sdk.presence(club)) == code
        assert await code_of(sdk.presence_stats(club)) == code
        if code:
            await sdk.subscribe(club)
            await sdk.events.next("subscribed")
    await sdk.unsubscribe(club)
    assert await code_of(sdk.publish(club, {})) == 103


async def test_data_of_another_format_is_refused(server: Server, sdk: Sdk, channel: Name) -> None:
    """Where publications must be JSON objects, anything else is error 107."""
    await as_user(sdk, server)
    objects = channel("objects")
    assert await code_of(sdk.publish(objects, "text")) == 107
    assert await code_of(sdk.publish(objects, {"text": 1})) is None


async def test_history_cannot_be_read_back_from_nowhere(
    server: Server, sdk: Sdk, api: Api, channel: Name
) -> None:
    """Nothing lies before offset 0: `reverse` from there is error 107."""
    await as_user(sdk, server)
    news = channel("open")
    epoch = (await api.publish(news, {}))["epoch"]
    since = {"offset": 0, "epoch": epoch}
    assert await code_of(sdk.history(news, limit=1, since=since, reverse=True)) == 107
