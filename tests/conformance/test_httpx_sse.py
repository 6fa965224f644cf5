"""`httpx-sse`, unmodified: event streams as a Python program reads them, and the HTTP around them."""

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
async def listening(
    http: httpx.AsyncClient, url: str, **options: Any
) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    """The events of a stream after its first two, which tell the position and who holds it."""
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
    """The first event has an id and no data, so a client that heard nothing yet knows where it is."""
    one, two = channel("open"), channel("open")
    first = await api.publish(one, {})
    epoch = (await api.call("history", channel=two))["epoch"]
    async with aconnect_sse(http, "GET", server.events_url(one, two)) as source:
        assert source.response.headers["content-type"].startswith("text/event-stream")
        assert "no-store" in source.response.headers["cache-control"]
        event = await anext(source.aiter_sse())
    assert (event.id, event.data) == (f"1@{first['epoch']},0@{epoch}", "")


async def test_the_position_can_be_given_back(
    server: Server, api: Api, http: httpx.AsyncClient, channel: Name
) -> None:
    """In the header that browsers send, or in the query: what follows the position is heard, once."""
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
            heard: list[ServerSentEvent] = []
            while len(heard) < 3:
                event = await anext(events)
                heard += [event] if event.data and event.event == "message" else []
        assert [event.json()["pub"]["offset"] for event in heard] == [2, 3, 4]
        assert heard[-1].id == f"4@{epoch}"


async def test_a_channel_without_a_log_has_an_empty_position(
    server: Server, api: Api, http: httpx.AsyncClient, channel: Name
) -> None:
    """Its element of the id is empty; its messages are delivered like all others."""
    plain, news = channel("plain"), channel("short")
    async with listening(http, server.events_url(plain, news)) as events:
        await api.publish(plain, 1)
        await api.publish(news, 2)
        first, second = await anext(events), await anext(events)
    assert (first.json(), second.json()["pub"]["data"]) == ({"channel": plain, "pub": {"data": 1}}, 2)
    empty, position = second.id.split(",")
    assert (empty, position[:2]) == ("", "1@")


async def test_joins_and_leaves_are_events_of_their_own(
    server: Server, http: httpx.AsyncClient, channel: Name
) -> None:
    """A page that only wants messages never sees them; one that asks by name does, its own join included."""
    news = channel("open")
    async with listening(http, server.events_url(news)) as events:
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
    """The log that the position was in is gone: the client is told, and goes on from the top."""
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
    club = channel("known")
    cookie = {"Cookie": f"tocsin_token={connection_token('ann')}"}
    async with listening(http, server.events_url(club, "lobby"), headers=cookie) as events:
        await api.publish(club, 1)
        assert (await anext(events)).json()["pub"] == {"data": 1}


async def test_a_listener_is_present_until_it_goes(
    server: Server, api: Api, http: httpx.AsyncClient, channel: Name
) -> None:
    """A stream joins its channels like any connection; when its socket closes it leaves at once."""
    news = channel("open")
    async with connect_wire(server) as watcher:
        await watcher.call("subscribe", channel=news)
        await watcher.push("join", news)
        token = connection_token("ann", info={"name": "Ann"})
        async with listening(http, server.events_url(news, token=token)):
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
async def test_a_stream_refused_says_why(
    server: Server, http: httpx.AsyncClient, query: str, status: int, code: int | None
) -> None:
    """401 without a good token, 403 for what is not permitted, 400 for what makes no sense; and a body."""
    response = await http.get(f"{server.url}/events?{query}")
    assert response.status_code == status, response.text
    body = response.json()
    assert code in (None, body["code"])
    assert body["message"]


async def test_without_a_token_a_cautious_server_is_silent(cautious: Server, http: httpx.AsyncClient) -> None:
    """Where anonymous connections are not allowed, a stream without a token is 401."""
    assert (await http.get(cautious.events_url("lobby"))).status_code == 401


async def test_the_methods_of_a_stream(server: Server, http: httpx.AsyncClient) -> None:
    """HEAD answers as GET would, without a stream; what would change something is not allowed."""
    url = server.events_url("open:1")
    head = await http.head(url)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"].startswith("text/event-stream")
    assert (await http.head(server.events_url("closed:1"))).status_code == 403
    for method in ("POST", "PUT", "DELETE"):
        assert (await http.request(method, url)).status_code == 405


async def test_pages_of_allowed_origins_may_listen(server: Server, http: httpx.AsyncClient) -> None:
    """An allowed origin is echoed, so that a browser hands the stream to the page, cookies included."""
    response = await http.head(server.events_url("open:1"), headers={"Origin": TRUSTED_ORIGIN})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == TRUSTED_ORIGIN
    assert response.headers["access-control-allow-credentials"] == "true"


async def test_pages_of_other_origins_may_not(server: Server, http: httpx.AsyncClient) -> None:
    """Another origin is not echoed: a browser keeps the stream from that page."""
    response = await http.head(server.events_url("open:1"), headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers


async def test_an_idle_stream_is_kept_alive(impatient: Server, http: httpx.AsyncClient) -> None:
    """Comments come about as often as pings on a WebSocket, and are no events."""
    async with http.stream("GET", impatient.events_url("open:idle")) as response:
        lines = response.aiter_lines()
        comments = 0
        while comments < 2:
            comments += (await anext(lines)).startswith(":")


async def test_a_connection_that_expires_ends_its_stream(impatient: Server, http: httpx.AsyncClient) -> None:
    """A stream cannot refresh: when its token's time is over it is told 3005."""
    token = connection_token("ann", exp=seconds_from_now(3))
    async with aconnect_sse(http, "GET", impatient.events_url("open:1", token=token)) as source:
        events = [event async for event in source.aiter_sse()]
    assert (events[-1].event, events[-1].json()["code"]) == ("disconnect", 3005)
    assert events[0].retry is not None, "when to come back is said first"
