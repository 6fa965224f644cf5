"""Official SDKs in channels that the server chose: by token, API or personal channel (§3, §5, §14)."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.conftest import NewSdk
from tests.conformance.sdks.contract import Sdk
from tests.support.api import Api
from tests.support.proxy import Proxy
from tests.support.server import Server
from tests.support.tokens import connection_token

Name = Callable[[str], str]


@pytest.mark.parametrize("claim", ["channels", "subs"])
async def test_a_token_subscribes_to_its_channels(
    server: Server, sdk: Sdk, api: Api, channel: Name, claim: str
) -> None:
    """On connect, also in channels that are closed to clients."""
    news = channel("closed")
    claims: dict[str, Any] = {claim: [news] if claim == "channels" else {news: {}}}
    token = connection_token("ann", **claims)
    await sdk.connect(server.websocket_url, token=token)
    assert (await sdk.events.next("server_subscribed"))["channel"] == news
    await api.publish(news, {"n": 1})
    received = await sdk.events.next("server_publication")
    assert (received["channel"], received["data"], received["offset"]) == (news, {"n": 1}, 1)


async def test_a_token_describes_its_subscriptions(server: Server, sdk: Sdk, api: Api, channel: Name) -> None:
    """`data` goes to the client, `info` into presence, and `override` changes the channel's options."""
    news = channel("closed")
    override = {"force_recovery": {"value": True}}
    subs = {news: {"data": {"hello": 1}, "info": {"seat": 3}, "override": override}}
    await sdk.connect(server.websocket_url, token=connection_token("ann", subs=subs))
    subscribed = await sdk.events.next("server_subscribed")
    assert (subscribed["data"], subscribed["recoverable"]) == ({"hello": 1}, True)
    (entry,) = (await api.call("presence", channel=news))["presence"].values()
    assert entry["chan_info"] == {"seat": 3}


async def test_the_back_end_subscribes_and_unsubscribes_a_user(
    server: Server, sdk: Sdk, api: Api, channel: Name
) -> None:
    """The API's `subscribe` and `unsubscribe` apply to open connections."""
    user, news = channel("user"), channel("closed")
    await sdk.connect(server.websocket_url, token=connection_token(user))
    await sdk.events.next("connected")
    await api.call("subscribe", user=user, channel=news, data={"welcome": True})
    subscribed = await sdk.events.next("server_subscribed")
    assert (subscribed["channel"], subscribed["data"]) == (news, {"welcome": True})
    await api.publish(news, {"n": 1})
    assert (await sdk.events.next("server_publication"))["data"] == {"n": 1}

    await api.call("unsubscribe", user=user, channel=news)
    assert (await sdk.events.next("server_unsubscribed"))["channel"] == news
    assert await api.call("presence_stats", channel=news) == {"num_clients": 0, "num_users": 0}


async def test_the_back_end_ends_a_client_side_subscription(
    server: Server, sdk: Sdk, api: Api, channel: Name
) -> None:
    """The API's `unsubscribe` has code 2000: the SDK does not subscribe again."""
    user, news = channel("user"), channel("open")
    await sdk.connect(server.websocket_url, token=connection_token(user))
    await sdk.subscribe(news)
    await sdk.events.next("subscribed")
    await api.call("unsubscribe", user=user, channel=news)
    gone = await sdk.events.next("unsubscribed")
    assert (gone["channel"], gone["code"], gone["reason"]) == (news, 2000, "server unsubscribe")


async def test_server_side_subscriptions_recover(proxy: Proxy, sdk: Sdk, api: Api, channel: Name) -> None:
    """After an absence the client gets what it missed, in order, once."""
    news = channel("open")
    await sdk.connect(proxy.websocket_url, token=connection_token("ann", channels=[news]))
    await sdk.events.next("server_subscribed")
    await api.publish(news, {"n": 1})
    await sdk.events.next("server_publication")
    proxy.cut()
    await proxy.wait_for_attempt()
    await api.publish_numbers(news, range(2, 5))
    proxy.restore()
    back = await sdk.events.next("server_subscribed")
    assert (back["was_recovering"], back["recovered"]) == (True, True)
    await sdk.events.take("server_publication", 3)
    await api.publish(news, {"n": 5})
    await sdk.events.next("server_publication")
    assert [event["offset"] for event in sdk.events.of("server_publication")] == [1, 2, 3, 4, 5]


async def test_joins_reach_server_side_subscriptions(server: Server, new_sdk: NewSdk, channel: Name) -> None:
    """A client subscribed by its token receives joins and leaves of others."""
    news = channel("open")
    ann, bob = await new_sdk(), await new_sdk()
    await ann.connect(server.websocket_url, token=connection_token("ann", channels=[news]))
    assert (await ann.events.next("server_join"))["info"]["user"] == "ann"
    await bob.connect(server.websocket_url, token=connection_token("bob", channels=[news]))
    assert (await ann.events.next("server_join"))["info"]["user"] == "bob"
    await bob.disconnect()
    assert (await ann.events.next("server_leave"))["info"]["user"] == "bob"


async def test_every_user_has_a_personal_channel(
    few_channels_server: Server, sdk: Sdk, channel: Name
) -> None:
    """With personal channels a user is subscribed to `#<user>` on connect."""
    user = channel("user").replace(":", "-")
    await sdk.connect(few_channels_server.websocket_url, token=connection_token(user))
    assert (await sdk.events.next("server_subscribed"))["channel"] == f"#{user}"
    async with Api(few_channels_server) as api:
        await api.publish(f"#{user}", {"for": "you"})
    assert (await sdk.events.next("server_publication"))["data"] == {"for": "you"}


async def test_an_anonymous_client_has_no_personal_channel(few_channels_server: Server, sdk: Sdk) -> None:
    await sdk.connect(few_channels_server.websocket_url)
    await sdk.events.next("connected")
    await sdk.subscribe("lobby")
    await sdk.events.next("subscribed")
    assert sdk.events.of("server_subscribed") == []
