"""The npm package `centrifuge`, unmodified, over the transports that it falls back to (protocol §16)."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.conformance.javascript_driver import JavaScriptDriver, run_script
from tests.support.api import Api
from tests.support.proxy import Proxy
from tests.support.refusal import Refused
from tests.support.tokens import connection_token

Name = Callable[[str], str]


@pytest.fixture
async def sdk(node_modules: None) -> AsyncIterator[JavaScriptDriver]:
    async with run_script("centrifuge.mjs") as driver:
        yield driver


async def connect(sdk: JavaScriptDriver, url: str, *transports: str, **options: Any) -> None:
    """Connect with these transports, in this order."""
    named = [{"transport": name, "endpoint": f"{url}/connection/{name}"} for name in transports]
    await sdk.call("connect", transports=named, emulation=f"{url}/emulation", **options)


@pytest.mark.parametrize("transport", ["http_stream", "sse"])
async def test_commands_and_recovery_work_over(
    proxy: Proxy, api: Api, sdk: JavaScriptDriver, channel: Name, transport: str
) -> None:
    news = channel("open")
    await connect(sdk, proxy.url, transport, token=connection_token("ann"))
    connected = await sdk.events.next("connected")
    assert connected["transport"] == transport
    await sdk.call("subscribe", channel=news)
    await sdk.events.next("subscribed")
    await sdk.call("publish", channel=news, data={"n": 1})
    await sdk.events.next("publication")
    assert (await sdk.call("presence_stats", channel=news))["clients"] == 1
    assert (await sdk.call("history", channel=news, limit=10))["offset"] == 1
    proxy.cut()
    await proxy.wait_for_attempt()
    await api.publish_numbers(news, range(2, 5))
    proxy.restore()
    await sdk.events.next("connected")
    back = await sdk.events.next("subscribed")
    assert back["was_recovering"]
    assert back["recovered"]
    await sdk.events.take("publication", 3)
    await api.publish(news, {"n": 5})
    await sdk.events.next("publication")
    assert [event["data"]["n"] for event in sdk.events.of("publication")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("transport", ["http_stream", "sse"])
async def test_refusals_have_their_codes_over(
    proxy: Proxy, sdk: JavaScriptDriver, channel: Name, transport: str
) -> None:
    await connect(sdk, proxy.url, transport)
    await sdk.events.next("connected")
    with pytest.raises(Refused) as refused:
        await sdk.call("publish", channel=channel("closed"), data=1)
    assert refused.value.code == 103


@pytest.mark.parametrize("transport", ["http_stream", "sse"])
async def test_an_invalid_token_ends_the_attempts_over(
    proxy: Proxy, sdk: JavaScriptDriver, transport: str
) -> None:
    await connect(sdk, proxy.url, transport, token="invalid")
    assert (await sdk.events.next("disconnected"))["code"] == 3500


async def test_the_sdk_falls_back_where_websockets_do_not_get_through(
    proxy: Proxy, sdk: JavaScriptDriver, channel: Name
) -> None:
    transports = [
        {"transport": "websocket", "endpoint": proxy.websocket_url.replace("/websocket", "/blocked")},
        {"transport": "http_stream", "endpoint": f"{proxy.url}/connection/http_stream"},
    ]
    await sdk.call("connect", transports=transports, emulation=f"{proxy.url}/emulation")
    assert (await sdk.events.next("connected"))["transport"] == "http_stream"
    news = channel("open")
    await sdk.call("subscribe", channel=news)
    await sdk.events.next("subscribed")
