"""Official SDKs lose their connection, reconnect, and recover exactly what they missed (protocol §10)."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.conformance.sdks.contract import Sdk
from tests.support.api import Api
from tests.support.configs import STANDARD
from tests.support.proxy import Proxy
from tests.support.recorded_events import Event
from tests.support.server import run_server
from tests.support.wire_client import connect_wire

Name = Callable[[str], str]


async def subscribe_to(sdk: Sdk, proxy: Proxy, *channels: str) -> None:
    await sdk.connect(proxy.websocket_url)
    await sdk.events.next("connected")
    for name in channels:
        await sdk.subscribe(name)
    await sdk.events.take("subscribed", len(channels))


@asynccontextmanager
async def away(sdk: Sdk, proxy: Proxy) -> AsyncIterator[None]:
    """The connection is cut, and the SDK has noticed it. At the end it can reconnect."""
    proxy.cut()
    await proxy.wait_for_attempt()
    yield
    proxy.restore()
    await sdk.events.next("connected")


def received(sdk: Sdk, channel: str) -> list[tuple[int, int]]:
    """(offset, number) of each publication of this channel, in the order of receipt."""
    events = [event for event in sdk.events.of("publication") if event["channel"] == channel]
    return [(event["offset"], event["data"]["n"]) for event in events]


def by_channel(events: list[Event]) -> dict[str, Event]:
    return {event["channel"]: event for event in events}


async def test_exactly_what_was_missed_is_recovered(proxy: Proxy, sdk: Sdk, api: Api, channel: Name) -> None:
    """In two channels each offset is received once and in order, before, during and after an absence."""
    one, two = channel("open"), channel("open")
    await subscribe_to(sdk, proxy, one, two)
    await api.publish_numbers(one, range(1, 4))
    await api.publish_numbers(two, range(1, 3))
    await sdk.events.take("publication", 5)
    async with away(sdk, proxy):
        await api.publish_numbers(one, range(4, 9))
        await api.publish_numbers(two, range(3, 5))
    back = await sdk.events.take("subscribed", 2)
    assert all(event["was_recovering"] and event["recovered"] for event in back)
    await sdk.events.take("publication", 7)
    await api.publish(one, {"n": 9})
    await sdk.events.next("publication")
    assert received(sdk, one) == [(n, n) for n in range(1, 10)]
    assert received(sdk, two) == [(n, n) for n in range(1, 5)]


async def test_an_absence_without_publications_recovers_nothing(
    proxy: Proxy, sdk: Sdk, channel: Name
) -> None:
    """A channel without publications has an epoch too. The client reconnects with `recovered`."""
    await subscribe_to(sdk, proxy, news := channel("open"))
    async with away(sdk, proxy):
        pass
    back = await sdk.events.next("subscribed")
    assert (back["channel"], back["recovered"], back["position"]["offset"]) == (news, True, 0)
    assert sdk.events.of("publication") == []


async def test_a_client_that_missed_too_much_is_not_recovered(
    proxy: Proxy, sdk: Sdk, api: Api, channel: Name
) -> None:
    """If history no longer reaches back, `recovered` is false, and the client continues from the top."""
    await subscribe_to(sdk, proxy, news := channel("short"))
    await api.publish(news, {"n": 1})
    await sdk.events.next("publication")
    async with away(sdk, proxy):
        await api.publish_numbers(news, range(2, 9))
    back = await sdk.events.next("subscribed")
    assert (back["was_recovering"], back["recovered"], back["position"]["offset"]) == (True, False, 8)
    await api.publish(news, {"n": 9})
    assert (await sdk.events.next("publication"))["offset"] == 9
    assert received(sdk, news) == [(1, 1), (9, 9)]


async def test_a_history_that_is_just_long_enough_recovers(
    proxy: Proxy, sdk: Sdk, api: Api, channel: Name
) -> None:
    """As many publications were missed as the history keeps."""
    await subscribe_to(sdk, proxy, news := channel("short"))
    await api.publish(news, {"n": 1})
    await sdk.events.next("publication")
    async with away(sdk, proxy):
        await api.publish_numbers(news, range(2, 7))
    assert (await sdk.events.next("subscribed"))["recovered"] is True
    await sdk.events.take("publication", 5)
    assert received(sdk, news) == [(n, n) for n in range(1, 7)]


async def test_a_cache_recovers_the_newest_publication_only(
    proxy: Proxy, sdk: Sdk, api: Api, channel: Name
) -> None:
    """In cache mode a returning client gets only the newest publication."""
    await subscribe_to(sdk, proxy, news := channel("cache"))
    await api.publish(news, {"n": 1})
    await sdk.events.next("publication")
    async with away(sdk, proxy):
        await api.publish_numbers(news, range(2, 7))
    assert (await sdk.events.next("subscribed"))["recovered"] is True
    await sdk.events.next("publication")
    await api.publish(news, {"n": 7})
    await sdk.events.next("publication")
    assert received(sdk, news) == [(1, 1), (6, 6), (7, 7)]


async def test_recovery_can_be_requested(proxy: Proxy, sdk: Sdk, api: Api, channel: Name) -> None:
    """If recovery is allowed and not forced, a subscription with `recoverable` recovers."""
    await sdk.connect(proxy.websocket_url)
    await sdk.events.next("connected")
    await sdk.subscribe(news := channel("asked"), recoverable=True)
    assert (await sdk.events.next("subscribed"))["recoverable"] is True
    async with away(sdk, proxy):
        await api.publish_numbers(news, range(1, 4))
    assert (await sdk.events.next("subscribed"))["recovered"] is True
    await sdk.events.take("publication", 3)
    assert received(sdk, news) == [(1, 1), (2, 2), (3, 3)]


async def test_a_server_with_another_epoch_does_not_recover(
    proxy: Proxy, sdk: Sdk, api: Api, channel: Name, tmp_path: Path
) -> None:
    """Under another epoch the same offset is another message. The client continues live."""
    await subscribe_to(sdk, proxy, news := channel("open"))
    await api.publish(news, {"n": 1})
    await sdk.events.next("publication")
    with run_server(STANDARD, tmp_path) as other:
        async with Api(other) as other_api, connect_wire(other) as watcher:
            await watcher.call("subscribe", channel=news)
            await other_api.publish(news, {"n": 100})
            async with away(sdk, proxy):
                proxy.forward_to(other)
            back = await sdk.events.next("subscribed")
            assert (back["was_recovering"], back["recovered"]) == (True, False)
            await other_api.publish(news, {"n": 101})
            await sdk.events.next("publication")
            assert received(sdk, news) == [(1, 1), (2, 101)]
            await sdk.disconnect()
            await watcher.push("leave", news)
