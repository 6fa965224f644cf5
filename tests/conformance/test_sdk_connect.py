"""Official SDKs connect, stay, are disconnected, and reconnect if the code permits it (§3, §6, §8)."""

from collections.abc import Callable

import pytest

from tests.conformance.sdks.contract import Sdk
from tests.support.api import Api
from tests.support.server import Server
from tests.support.tokens import connection_token, seconds_from_now
from tests.support.wire_client import connect_wire

Name = Callable[[str], str]


async def test_an_anonymous_client_connects(server: Server, sdk: Sdk) -> None:
    """If anonymous connections are allowed, no token is needed."""
    await sdk.connect(server.websocket_url)
    assert (await sdk.events.next("connected"))["client"]


async def test_a_token_identifies_the_user(server: Server, sdk: Sdk, channel: Name) -> None:
    """`sub` and `info` of the token are the `user` and `conn_info` in presence."""
    await sdk.connect(server.websocket_url, token=connection_token("ann", info={"name": "Ann"}))
    me = (await sdk.events.next("connected"))["client"]
    await sdk.subscribe(news := channel("open"))
    await sdk.events.next("subscribed")
    entry = {"client": me, "user": "ann", "conn_info": {"name": "Ann"}, "chan_info": None}
    assert await sdk.presence(news) == {me: entry}


async def test_an_invalid_token_ends_the_connection_for_good(server: Server, sdk: Sdk) -> None:
    """A token signed with another key closes with 3500, and the SDK does not reconnect."""
    await sdk.connect(server.websocket_url, token=connection_token("ann", secret="another" * 8))
    gone = await sdk.events.next("disconnected")
    assert (gone["code"], gone["reason"]) == (3500, "invalid token")


async def test_a_token_only_server_refuses_a_client_without_token(
    token_only_server: Server, sdk: Sdk
) -> None:
    """The code is 3501."""
    await sdk.connect(token_only_server.websocket_url)
    assert (await sdk.events.next("disconnected"))["code"] == 3501


async def test_a_token_only_server_accepts_a_client_with_token(token_only_server: Server, sdk: Sdk) -> None:
    await sdk.connect(token_only_server.websocket_url, token=connection_token("ann"))
    assert (await sdk.events.next("connected"))["client"]


async def test_an_insecure_server_permits_everything(insecure_server: Server, sdk: Sdk) -> None:
    """A client without token subscribes to and publishes into a channel without permissions."""
    await sdk.connect(insecure_server.websocket_url)
    await sdk.subscribe("closed:news")
    await sdk.events.next("subscribed")
    await sdk.publish("closed:news", {"open": True})
    assert (await sdk.events.next("publication"))["data"] == {"open": True}


async def test_an_expired_token_is_replaced_by_a_fresh_one(server: Server, sdk: Sdk) -> None:
    """Error 109 makes the SDK request a token from its application, and connect with it."""
    expired = connection_token("ann", exp=seconds_from_now(-10))
    await sdk.connect(server.websocket_url, token=expired, tokens=[connection_token("ann")])
    await sdk.events.next("token_requested")
    assert (await sdk.events.next("connected"))["client"]


async def test_a_connection_outlives_its_tokens(server: Server, sdk: Sdk) -> None:
    """The SDK refreshes the connection before each token expires. It never reconnects."""
    tokens = [connection_token("ann", exp=seconds_from_now(life)) for life in (2, 4, 100)]
    await sdk.connect(server.websocket_url, tokens=tokens)
    await sdk.events.take(
        "token_requested", 3
    )  # one to connect, and one each time the last was about to expire
    assert len(sdk.events.of("connected")) == 1
    assert len(sdk.events.of("connecting")) == 1


async def test_a_refresh_with_a_bad_token_ends_the_connection(server: Server, sdk: Sdk) -> None:
    """A refresh with a token of another user closes with 3500."""
    tokens = [connection_token("ann", exp=seconds_from_now(2)), connection_token("bob")]
    await sdk.connect(server.websocket_url, tokens=tokens)
    assert (await sdk.events.next("disconnected"))["code"] == 3500


async def test_force_disconnect_is_terminal(server: Server, sdk: Sdk, api: Api, channel: Name) -> None:
    """The API's `disconnect` uses 3503 by default: the SDK does not reconnect."""
    user = channel("user")
    await sdk.connect(server.websocket_url, token=connection_token(user))
    await sdk.events.next("connected")
    await api.call("disconnect", user=user)
    gone = await sdk.events.next("disconnected")
    assert (gone["code"], gone["reason"]) == (3503, "force disconnect")


@pytest.mark.parametrize(
    ("code", "reason"), [(3001, "shutdown"), (3011, "force reconnect"), (4001, "our own")]
)
async def test_an_sdk_reconnects_after_a_temporary_disconnect(
    server: Server, sdk: Sdk, api: Api, channel: Name, code: int, reason: str
) -> None:
    """After 3000 to 3499 and 4000 to 4499 the SDK reconnects and resubscribes by itself."""
    user, news = channel("user"), channel("open")
    await sdk.connect(server.websocket_url, token=connection_token(user))
    await sdk.events.next("connecting")
    await sdk.subscribe(news)
    await sdk.events.next("subscribed")
    await api.call("disconnect", user=user, disconnect={"code": code, "reason": reason})
    away = await sdk.events.next("connecting")
    assert (away["code"], away["reason"]) == (code, reason)
    assert (await sdk.events.next("subscribed"))["recovered"] is True


async def test_an_application_can_disconnect_a_client_for_good(
    server: Server, sdk: Sdk, api: Api, channel: Name
) -> None:
    """After 4500 to 4999, an application's own codes, the SDK does not reconnect."""
    user = channel("user")
    await sdk.connect(server.websocket_url, token=connection_token(user))
    await sdk.events.next("connected")
    await api.call("disconnect", user=user, disconnect={"code": 4500, "reason": "banned"})
    gone = await sdk.events.next("disconnected")
    assert (gone["code"], gone["reason"]) == (4500, "banned")


async def test_an_sdk_answers_pings_and_stays_connected(short_timeouts_server: Server, sdk: Sdk) -> None:
    """Over several ping intervals, with a pong for each, the SDK never reconnects."""
    await sdk.connect(short_timeouts_server.websocket_url)
    await sdk.events.next("connected")
    async with connect_wire(short_timeouts_server) as other:
        await other.wait_for_pings(3)
    assert len(sdk.events.of("connecting")) == 1


async def test_a_client_that_disconnects_leaves_presence_at_once(
    server: Server, sdk: Sdk, api: Api, channel: Name
) -> None:
    await sdk.connect(server.websocket_url)
    await sdk.subscribe(news := channel("open"))
    await sdk.events.next("subscribed")
    async with connect_wire(server) as watcher:
        await watcher.call("subscribe", channel=news)
        await sdk.disconnect()
        await watcher.push("leave", news)
    assert (await sdk.events.next("disconnected"))["code"] == 0
    assert await api.call("presence_stats", channel=news) == {"num_clients": 0, "num_users": 0}
