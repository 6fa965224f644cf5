"""The npm package `eventsource`, unmodified, in Node.js: a plain EventSource without an SDK."""

from collections.abc import AsyncIterator, Callable

import pytest

from tests.conformance.javascript_driver import JavaScriptDriver, run_script
from tests.support.api import Api
from tests.support.proxy import Proxy
from tests.support.recorded_events import Event
from tests.support.server import Server
from tests.support.tokens import connection_token

Name = Callable[[str], str]


@pytest.fixture
async def source(node_modules: None) -> AsyncIterator[JavaScriptDriver]:
    async with run_script("eventsource.mjs") as driver:
        yield driver


def numbers(events: list[Event], channel: str) -> list[int]:
    return [event["pub"]["data"]["n"] for event in events if event["channel"] == channel]


async def test_one_stream_carries_several_channels(
    server: Server, api: Api, source: JavaScriptDriver, channel: Name
) -> None:
    """Every message names its channel. Its id is the position in all channels, in the query's order."""
    one, two = channel("open"), channel("open")
    await source.call("open", url=server.events_url(one, two))
    await source.events.next("open")
    first = await api.publish(one, {"n": 1})
    second = await api.publish(two, {"n": 2})
    received = await source.events.take("message", 2)
    assert [(event["channel"], event["pub"]) for event in received] == [
        (one, {"data": {"n": 1}, "offset": 1}),
        (two, {"data": {"n": 2}, "offset": 1}),
    ]
    assert [event["id"] for event in received] == [
        f"1@{first['epoch']},0@{second['epoch']}",
        f"1@{first['epoch']},1@{second['epoch']}",
    ]


async def test_a_reconnect_misses_nothing_on_any_channel(
    proxy: Proxy, api: Api, source: JavaScriptDriver, channel: Name
) -> None:
    """The package reconnects by itself with `Last-Event-ID`, and receives what it missed once, in order."""
    one, two = channel("open"), channel("open")
    await source.call("open", url=proxy.events_url(one, two))
    await source.events.next("open")
    await api.publish_numbers(one, range(1, 3))
    await source.events.take("message", 2)
    proxy.cut()
    await source.events.next("error")
    await api.publish_numbers(one, range(3, 6))
    await api.publish_numbers(two, range(1, 5))
    proxy.restore()
    await source.events.take("message", 7)
    await api.publish(one, {"n": 6})
    await source.events.next("message")
    events = source.events.of("message")
    assert numbers(events, one) == [1, 2, 3, 4, 5, 6]
    assert numbers(events, two) == [1, 2, 3, 4]
    assert source.events.of("gap") == []


async def test_a_gap_comes_before_the_publications_after_it(
    proxy: Proxy, api: Api, source: JavaScriptDriver, channel: Name
) -> None:
    """If history no longer reaches back, an event describes the gap. Then the stream continues."""
    kept, short = channel("open"), channel("short")
    await source.call("open", url=proxy.events_url(kept, short))
    await source.events.next("open")
    epoch = (await api.publish(short, {"n": 1}))["epoch"]
    await source.events.next("message")
    proxy.cut()
    await source.events.next("error")
    await api.publish_numbers(short, range(2, 10))
    await api.publish(kept, {"n": 1})
    proxy.restore()
    gap = await source.events.next("gap")
    assert gap["channel"] == short
    assert (gap["from"], gap["to"]) == ({"offset": 1, "epoch": epoch}, {"offset": 9, "epoch": epoch})
    assert (await source.events.next("message"))["channel"] == kept
    await api.publish(short, {"n": 10})
    assert (await source.events.next("message"))["pub"]["offset"] == 10


async def test_a_token_may_be_in_the_query_or_a_header(
    server: Server, api: Api, source: JavaScriptDriver, channel: Name
) -> None:
    """It opens a channel for users with a name."""
    members = channel("known")
    token = connection_token("ann")
    await source.call("open", url=server.events_url(members, token=token))
    await source.events.next("open")
    await source.call("close")
    await source.call("open", url=server.events_url(members), headers={"Authorization": f"Bearer {token}"})
    await source.events.next("open")
    await api.publish(members, {"n": 1})
    assert (await source.events.next("message"))["pub"] == {"data": {"n": 1}}


@pytest.mark.parametrize(
    ("namespace", "token", "status"),
    [("open", "garbage", 401), ("closed", "", 403), ("known", "", 403), ("nowhere", "", 403)],
)
async def test_a_refused_stream_is_not_retried(
    server: Server, source: JavaScriptDriver, channel: Name, namespace: str, token: str, status: int
) -> None:
    """An invalid token is 401, a channel without permission 403. Both end an EventSource for good."""
    query = {"token": token} if token else {}
    await source.call("open", url=server.events_url(channel(namespace), **query))
    error = await source.events.next("error")
    closed = 2
    assert (error["code"], error["state"]) == (status, closed)


async def test_a_disconnected_stream_gets_code_and_reason(
    server: Server, api: Api, source: JavaScriptDriver, channel: Name
) -> None:
    """The API's disconnect arrives as an event before the stream ends."""
    user = channel("user")
    await source.call("open", url=server.events_url(channel("open"), token=connection_token(user)))
    await source.events.next("open")
    await api.call("disconnect", user=user)
    gone = await source.events.next("disconnect")
    assert (gone["code"], gone["reason"]) == (3503, "force disconnect")
    await source.call("close")
