"""Official SDKs get refusals with the protocol's code, and stay connected (protocol §7, §13)."""

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


async def code_of(call: Awaitable[Any]) -> int | None:
    """The code of the refusal, or None if the call succeeded."""
    try:
        await call
    except Refused as refused:
        return refused.code
    return None


@pytest.mark.parametrize(("name", "code"), REFUSED_SUBSCRIPTIONS.values(), ids=REFUSED_SUBSCRIPTIONS)
async def test_a_subscription_is_permitted_or_refused(
    server: Server, sdk: Sdk, name: str, code: int | None
) -> None:
    """The user is ann. Each case has a reason of its own."""
    await as_user(sdk, server, "ann")
    await sdk.subscribe(name)
    if code is None:
        assert (await sdk.events.next("subscribed"))["channel"] == name
    else:
        assert (await sdk.events.next("unsubscribed"))["code"] == code
        await sdk.publish("open:afterwards", {})


async def test_anonymous_clients_need_a_permission_of_their_own(server: Server, sdk: Sdk) -> None:
    """`allow_subscribe_for_client` is for users. An anonymous client needs `_for_anonymous`."""
    await as_user(sdk, server)
    await sdk.subscribe("known:1")
    assert (await sdk.events.next("unsubscribed"))["code"] == 103


async def test_a_second_subscription_to_a_channel_is_refused(server: Server, sdk: Sdk, channel: Name) -> None:
    """A client-side subscription beside a server-side one is error 105."""
    news = channel("open")
    await sdk.connect(server.websocket_url, token=connection_token("ann", channels=[news]))
    await sdk.events.next("server_subscribed")
    await sdk.subscribe(news)
    assert (await sdk.events.next("unsubscribed"))["code"] == 105


async def test_channels_beyond_the_limit_are_refused(
    few_channels_server: Server, sdk: Sdk, channel: Name
) -> None:
    """With a limit of ten channels the eleventh is error 106, and the ten work."""
    await as_user(sdk, few_channels_server)
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
    """Unknown namespace 102, not permitted 103, no history or presence 108."""
    await as_user(sdk, server)
    name = channel(namespace)
    assert await code_of(sdk.publish(name, {})) == publish
    assert await code_of(sdk.history(name, limit=1)) == history
    assert await code_of(sdk.presence(name)) == presence
    assert await code_of(sdk.presence_stats(name)) == presence


async def test_some_methods_are_for_subscribers(server: Server, sdk: Sdk, channel: Name) -> None:
    """`_for_subscriber` permits only while the client is subscribed."""
    await as_user(sdk, server, "ann")
    members = channel("member")
    for code in (103, None):
        assert await code_of(sdk.publish(members, {})) == code
        assert await code_of(sdk.history(members, limit=1)) == code
        assert await code_of(sdk.presence(members)) == code
        assert await code_of(sdk.presence_stats(members)) == code
        if code:
            await sdk.subscribe(members)
            await sdk.events.next("subscribed")
    await sdk.unsubscribe(members)
    assert await code_of(sdk.publish(members, {})) == 103


async def test_data_of_another_format_is_refused(server: Server, sdk: Sdk, channel: Name) -> None:
    """If publications must be JSON objects, other data is error 107."""
    await as_user(sdk, server)
    objects = channel("objects")
    assert await code_of(sdk.publish(objects, "text")) == 107
    assert await code_of(sdk.publish(objects, {"text": 1})) is None


async def test_reverse_history_from_offset_0_is_refused(
    server: Server, sdk: Sdk, api: Api, channel: Name
) -> None:
    """The error is 107: no publication is before offset 0."""
    await as_user(sdk, server)
    news = channel("open")
    epoch = (await api.publish(news, {}))["epoch"]
    since = {"offset": 0, "epoch": epoch}
    assert await code_of(sdk.history(news, limit=1, since=since, reverse=True)) == 107
