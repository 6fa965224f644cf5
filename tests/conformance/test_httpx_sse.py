"""`httpx-sse`, unmodified: event streams as a Python program reads them, and their HTTP."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from tests.support.api import NO_TLS, Api
from tests.support.configs import TRUSTED_ORIGIN
from tests.support.server import Server
from tests.support.timing import SOON
from tests.support.tokens import connection_token, seconds_from_now
from tests.support.wire_client import connect_wire

Name = Callable[[str], str]


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=SOON, trust_env=False, verify=NO_TLS) as client:
        yield client


@asynccontextmanager
async def stream_events(
    http: httpx.AsyncClient, url: str, **options: Any
) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    """The events of a stream after its first two, which carry the position and the client."""
    source: EventSource
    async with aconnect_sse(http, "GET", url, **options) as source:
        source.response.raise_for_status()
        events = source.aiter_sse()
        first = await anext(events)
        assert (first.data, bool(first.id)) == ("", True)
        second = await anext(events)
        assert (second.event, sorted(second.json())) == ("connect", ["client", "node"])
        yield events


async def test_a_stream_opens_with_its_position(
    server: Server, api: Api, http: httpx.AsyncClient, channel: Name
) -> None:
    """The first event has an id and no data: a client has a position before its first message."""
    one, two = channel("open"), channel("open")
    first = await api.publish(one, {})
    epoch = (await api.call("history", channel=two))["epoch"]
    async with aconnect_sse(http, "GET", server.events_url(one, two)) as source:
        assert source.response.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in source.response.headers["cache-control"]
        event = await anext(source.aiter_sse())
    assert (event.id, event.data) == (f"1@{first['epoch']},0@{epoch}", "")


async def test_a_stream_resumes_from_a_position(
    server: Server, api: Api, http: httpx.AsyncClient, channel: Name
) -> None:
    """In the header that browsers send, or in the query. What follows the position is received once."""
    news = channel("short")
    epoch = (await api.publish(news, {"n": 1}))["epoch"]
    await api.publish_numbers(news, range(2, 5))
    position = f"1@{epoch}"
    header: dict[str, Any] = {"headers": {"Last-Event-ID": position}}
    for url, options in (
        (server.events_url(news), header),
        (server.events_url(news, last_event_id=position), {}),
    ):
        async with aconnect_sse(http, "GET", url, **options) as source:
            events = source.aiter_sse()
            received: list[ServerSentEvent] = []
            while len(received) < 3:
                event = await anext(events)
                received += [event] if event.data and event.event == "message" else []
        assert [event.json()["pub"]["offset"] for event in received] == [2, 3, 4]
        assert received[-1].id == f"4@{epoch}"


async def test_a_channel_without_history_has_an_empty_position(
    server: Server, api: Api, http: httpx.AsyncClient, channel: Name
) -> None:
    """Its element of the id is empty. Its messages are delivered like all others."""
    plain, news = channel("plain"), channel("short")
    async with stream_events(http, server.events_url(plain, news)) as events:
        await api.publish(plain, 1)
        await api.publish(news, 2)
        first, second = await anext(events), await anext(events)
    assert (first.json(), second.json()["pub"]["data"]) == ({"channel": plain, "pub": {"data": 1}}, 2)
    empty, position = second.id.split(",")
    assert (empty, position[:2]) == ("", "1@")


async def test_joins_and_leaves_are_named_events(
    server: Server, http: httpx.AsyncClient, channel: Name
) -> None:
    """A page that handles only messages never gets them. A page that handles them also gets its own join."""
    news = channel("open")
    async with stream_events(http, server.events_url(news)) as events:
        assert (await anext(events)).event == "join"
        async with connect_wire(server, token=connection_token("ann")) as wire:
            await wire.call("subscribe", channel=news)
            joined = await anext(events)
        left = await anext(events)
    assert (joined.event, left.event) == ("join", "leave")
    assert joined.json()["join"]["info"] == left.json()["leave"]["info"]
    assert joined.json()["channel"] == news
    assert joined.id == left.id  # no message, no other position


async def test_a_position_of_another_epoch_is_a_gap(
    server: Server, api: Api, http: httpx.AsyncClient, channel: Name
) -> None:
    """That history is gone. The client gets a gap event, and continues from the top."""
    news = channel("open")
    epoch = (await api.publish(news, {}))["epoch"]
    url = server.events_url(news, last_event_id="1@elsewhen")
    async with aconnect_sse(http, "GET", url) as source:
        events = source.aiter_sse()
        while (gap := await anext(events)).event != "gap":
            assert gap.event == "connect" or not gap.data
    assert gap.json() == {
        "channel": news,
        "from": {"offset": 1, "epoch": "elsewhen"},
        "to": {"offset": 1, "epoch": epoch},
    }


async def test_a_cookie_can_carry_the_token(
    server: Server, api: Api, http: httpx.AsyncClient, channel: Name
) -> None:
    """A browser's EventSource cannot set headers, but it sends cookies."""
    members = channel("known")
    cookie = {"Cookie": f"tocsin_token={connection_token('ann')}"}
    async with stream_events(http, server.events_url(members, "lobby"), headers=cookie) as events:
        await api.publish(members, 1)
        assert (await anext(events)).json()["pub"] == {"data": 1}


async def test_a_stream_is_present_until_its_socket_closes(
    server: Server, api: Api, http: httpx.AsyncClient, channel: Name
) -> None:
    """A stream joins its channels like any connection, and leaves at once."""
    news = channel("open")
    async with connect_wire(server) as watcher:
        await watcher.call("subscribe", channel=news)
        await watcher.push("join", news)
        token = connection_token("ann", info={"name": "Ann"})
        async with stream_events(http, server.events_url(news, token=token)):
            assert (await watcher.push("join", news))["info"]["user"] == "ann"
            assert (await api.call("presence_stats", channel=news))["num_clients"] == 2
        assert (await watcher.push("leave", news))["info"]["conn_info"] == {"name": "Ann"}
        assert (await api.call("presence_stats", channel=news))["num_clients"] == 1


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("channel=open:1&token=garbage", 401, 3500),
        (f"channel=open:1&token={connection_token('ann', secret='other' * 9)}", 401, 3500),
        (f"channel=open:1&token={connection_token('ann', exp=seconds_from_now(-9))}", 401, 109),
        ("channel=closed:1", 403, 103),
        ("channel=known:1", 403, 103),
        ("channel=$open:1", 403, 103),
        ("channel=open:1&channel=closed:1", 403, 103),
        ("channel=nowhere:1", 403, 102),
        ("", 400, None),
        ("channel=", 400, None),
        ("channel=open:1&last_event_id=nonsense", 400, None),
        ("channel=open:1&last_event_id=1@a,2@b", 400, None),
        ("channel=" + "x" * 300, 400, 107),
        ("channel=open:gr%C3%B6%C3%9Fe", 400, 107),
    ],
)
async def test_a_refused_stream_has_a_status_and_a_reason(
    server: Server, http: httpx.AsyncClient, query: str, status: int, code: int | None
) -> None:
    """401 for an invalid token, 403 for a missing permission, 400 for an invalid request."""
    response = await http.get(f"{server.url}/events?{query}")
    assert response.status_code == status, response.text
    body = response.json()
    assert code in (None, body["code"])
    assert body["message"]


async def test_a_server_without_anonymous_access_refuses_a_stream_without_token(
    token_only_server: Server, http: httpx.AsyncClient
) -> None:
    """The status is 401."""
    assert (await http.get(token_only_server.events_url("lobby"))).status_code == 401


async def test_a_stream_supports_get_and_head_only(server: Server, http: httpx.AsyncClient) -> None:
    """HEAD answers as GET does, without a stream."""
    url = server.events_url("open:1")
    head = await http.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")
    assert (await http.head(server.events_url("closed:1"))).status_code == 403
    for method in ("POST", "PUT", "DELETE"):
        assert (await http.request(method, url)).status_code == 405


async def test_an_allowed_origin_is_echoed(server: Server, http: httpx.AsyncClient) -> None:
    """A browser then gives the stream to the page, cookies included."""
    response = await http.head(server.events_url("open:1"), headers={"Origin": TRUSTED_ORIGIN})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == TRUSTED_ORIGIN
    assert response.headers["access-control-allow-credentials"] == "true"


async def test_another_origin_is_not_echoed(server: Server, http: httpx.AsyncClient) -> None:
    """A browser then keeps the stream from the page."""
    response = await http.head(server.events_url("open:1"), headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers


async def test_an_idle_stream_is_kept_alive(short_timeouts_server: Server, http: httpx.AsyncClient) -> None:
    """Comments come about as often as pings on a WebSocket. They are no events."""
    async with http.stream("GET", short_timeouts_server.events_url("open:idle")) as response:
        lines = response.aiter_lines()
        comments = 0
        while comments < 2:
            comments += (await anext(lines)).startswith(":")


async def test_a_connection_that_expires_ends_its_stream(
    short_timeouts_server: Server, http: httpx.AsyncClient
) -> None:
    """A stream cannot refresh. When its token expires, it ends with 3005."""
    token = connection_token("ann", exp=seconds_from_now(3))
    async with aconnect_sse(http, "GET", short_timeouts_server.events_url("open:1", token=token)) as source:
        events = [event async for event in source.aiter_sse()]
    assert (events[-1].event, events[-1].json()["code"]) == ("disconnect", 3005)
    assert events[0].retry is not None, "the reconnect delay comes first"
