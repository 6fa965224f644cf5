"""Official SDKs with subscription tokens: accepted, refused, refreshed, expired (protocol §12)."""

from collections.abc import Callable

import pytest

from tests.conformance.sdks.contract import Sdk
from tests.support.server import Server
from tests.support.tokens import connection_token, seconds_from_now, subscription_token

Name = Callable[[str], str]


async def connect_ann(sdk: Sdk, server: Server) -> str:
    await sdk.connect(server.websocket_url, token=connection_token("ann"))
    me: str = (await sdk.events.next("connected"))["client"]
    return me


async def test_a_token_opens_a_closed_channel(server: Server, sdk: Sdk, channel: Name) -> None:
    """A valid subscription token overrides the namespace's permissions. Its `info` is the `chan_info`."""
    me = await connect_ann(sdk, server)
    news = channel("member")
    await sdk.subscribe(news, token=subscription_token("ann", news, info={"seat": 7}))
    await sdk.events.next("subscribed")
    assert (await sdk.presence(news))[me]["chan_info"] == {"seat": 7}


async def test_the_subscribe_reply_has_the_tokens_data(server: Server, sdk: Sdk, channel: Name) -> None:
    await connect_ann(sdk, server)
    news = channel("closed")
    await sdk.subscribe(news, token=subscription_token("ann", news, data={"hello": "ann"}))
    assert (await sdk.events.next("subscribed"))["data"] == {"hello": "ann"}


async def test_a_dollar_channel_needs_a_token(server: Server, sdk: Sdk, channel: Name) -> None:
    """This holds also in a namespace that every client may subscribe to."""
    await connect_ann(sdk, server)
    private = "$" + channel("open")
    await sdk.subscribe(private)
    assert (await sdk.events.next("unsubscribed"))["code"] == 103


async def test_a_dollar_channel_opens_with_a_token(server: Server, sdk: Sdk, channel: Name) -> None:
    """The SDK requests a token for the channel from its application."""
    await connect_ann(sdk, server)
    private = "$" + channel("open")
    await sdk.subscribe(private, tokens=[subscription_token("ann", private)])
    assert (await sdk.events.next("subscribed"))["channel"] == private
    assert (await sdk.events.next("token_requested"))["channel"] == private


async def test_a_forged_token_is_refused(server: Server, sdk: Sdk, channel: Name) -> None:
    """A subscription token signed with another key is error 103. The connection stays open."""
    await connect_ann(sdk, server)
    news = channel("open")
    await sdk.subscribe(news, token=subscription_token("ann", news, secret="another" * 8))
    assert (await sdk.events.next("unsubscribed"))["code"] == 103
    await sdk.publish(channel("open"), {})


@pytest.mark.parametrize("claims", [{"user": "bob"}, {"channel": "open:elsewhere"}, {"client": "another"}])
async def test_a_token_for_another_target_ends_the_connection(
    server: Server, sdk: Sdk, channel: Name, claims: dict[str, str]
) -> None:
    """A token for another user, channel or connection closes with 3500."""
    await connect_ann(sdk, server)
    news = channel("open")
    await sdk.subscribe(news, token=subscription_token(**{"user": "ann", "channel": news, **claims}))
    assert (await sdk.events.next("disconnected"))["code"] == 3500


async def test_an_expired_token_is_replaced(server: Server, sdk: Sdk, channel: Name) -> None:
    """After error 109 the SDK keeps subscribing: it requests a token, and succeeds."""
    await connect_ann(sdk, server)
    news = channel("closed")
    tokens = [subscription_token("ann", news, exp=seconds_from_now(life)) for life in (-10, 100)]
    await sdk.subscribe(news, tokens=tokens)
    assert (await sdk.events.next("subscribed"))["channel"] == news
    assert (await sdk.events.next("subscription_error"))["code"] == 109


async def test_a_subscription_outlives_its_tokens(server: Server, sdk: Sdk, channel: Name) -> None:
    """The SDK refreshes the subscription before each token expires. It never subscribes again."""
    await connect_ann(sdk, server)
    news = channel("closed")
    tokens = [subscription_token("ann", news, exp=seconds_from_now(life)) for life in (2, 4, 100)]
    await sdk.subscribe(news, tokens=tokens)
    await sdk.events.take("token_requested", 3)
    assert len(sdk.events.of("subscribing")) == 1
    assert len(sdk.events.of("subscribed")) == 1
    assert len(sdk.events.of("connecting")) == 1


async def test_a_refresh_with_another_users_token_ends_the_connection(
    server: Server, sdk: Sdk, channel: Name
) -> None:
    """A `sub_refresh` with a token that does not match closes with 3500."""
    await connect_ann(sdk, server)
    news = channel("closed")
    tokens = [
        subscription_token("ann", news, exp=seconds_from_now(2)),
        subscription_token("bob", news),
    ]
    await sdk.subscribe(news, tokens=tokens)
    assert (await sdk.events.next("disconnected"))["code"] == 3500
