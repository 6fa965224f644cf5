"""Requests that get an answer instead of a stream: what is wrong with them, and pages of other origins."""

from collections.abc import Callable

import pytest

from tests.server.transports.sse.streams import ORIGIN, Served, served
from tests.support.tokens import connection_token, seconds_from_now
from tocsin_server.core.positions import History
from tocsin_server.errors import EngineError

Name = Callable[[str], str]


@pytest.mark.parametrize(
    ("query", "status", "code", "says"),
    [
        ("", 400, 107, "channel=NAME"),
        ("channel=", 400, 107, "channel=NAME"),
        ("channel=a&channel=", 400, 107, "channel=NAME"),
        ("channel=a&channel=b&channel=a", 400, 107, "twice"),
        ("&".join(f"channel={number}" for number in range(129)), 400, 106, "129"),
        ("channel=" + "x" * 300, 400, 107, "bad request"),
        ("channel=gr%C3%B6%C3%9Fe", 400, 107, "bad request"),
        ("channel=a&last_event_id=nonsense", 400, 107, "nonsense"),
        ("channel=a&last_event_id=1@a,2@b", 400, 107, "2 positions for 1"),
        ("channel=a&last_event_id=9999999999999999999@a", 400, 107, "offset@epoch"),
        ("channel=a&token=garbage", 401, 3500, "invalid token"),
        (f"channel=a&token={connection_token('ann', exp=seconds_from_now(-9))}", 401, 109, "expired"),
        ("channel=nowhere:1", 403, 102, '"nowhere:1"'),
        ("channel=a&channel=closed:1&channel=seen:1", 403, 103, '"closed:1"'),
        ("channel=$a", 403, 103, '"$a"'),
    ],
)
async def test_a_request_that_is_refused_says_why(
    tocsin: Served, query: str, status: int, code: int, says: str
) -> None:
    """The status is for the browser, code and message for whoever wrote the page; nothing stays behind."""
    response = await tocsin.http.get(f"/events?{query}")
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert says in body["message"]
    assert response.headers["cache-control"] == "no-store"
    assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert (await tocsin.http.head(f"/events?{query}")).status_code == status
    await tocsin.is_empty()


async def test_without_a_token_nobody_listens_where_that_is_not_allowed() -> None:
    """A missing token is 401 like a bad one, and the message says that one is needed."""
    async with served(client={"allow_anonymous": False}) as tocsin:
        response = await tocsin.http.get(tocsin.path("lobby"))
        assert (response.status_code, response.json()["code"]) == (401, 101)
        assert "token" in response.json()["message"]
        async with tocsin.stream("lobby", token=connection_token("ann")):
            pass


async def test_a_bad_header_is_refused_like_a_bad_query(tocsin: Served) -> None:
    """The id of a stream of other channels."""
    response = await tocsin.http.get(tocsin.path("a", "b"), headers={"Last-Event-ID": "1@abc"})
    assert (response.status_code, response.json()["code"]) == (400, 107)


async def test_too_many_connections_of_a_user_are_refused() -> None:
    """429; the stream that was there first goes on."""
    async with served(client={"user_connection_limit": 1}) as tocsin:
        token = connection_token("ann")
        async with tocsin.stream("lobby", token=token) as stream:
            response = await tocsin.http.get(tocsin.path("lobby", token=token))
            assert (response.status_code, response.json()["code"]) == (429, 3504)
            await tocsin.publish("lobby", 1)
            assert await stream.numbers(1) == [1]


async def test_an_engine_that_fails_is_503(
    tocsin: Served, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Try again later; and no channel is left half entered."""

    async def fail(*_: object) -> History:
        raise EngineError("gone")

    monkeypatch.setattr(tocsin.node.engine.broker, "read_history", fail)
    response = await tocsin.http.get(tocsin.path("lobby", channel("log")))
    assert (response.status_code, response.json()["code"]) == (503, 100)
    assert int(response.headers["retry-after"]) > 0
    await tocsin.is_empty()


async def test_a_head_request_changes_nothing(tocsin: Served, channel: Name) -> None:
    """The headers of a stream, and no stream: nobody is present, nobody joins, no channel is entered."""
    room = channel("seen")
    token = connection_token("ann", channels=["closed:1"])
    async with tocsin.stream(room) as watcher:
        assert (await watcher.next()).kind == "join"
        head = await tocsin.http.head(tocsin.path(room, "closed:1", token=token))
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/event-stream")
        assert await watcher.is_quiet()
        assert list(tocsin.node.hub.channels) == [room]
        assert len(tocsin.node.hub) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_other_methods_are_not_allowed(tocsin: Served, method: str) -> None:
    """A stream is only ever asked for."""
    assert (await tocsin.http.request(method, tocsin.path("lobby"))).status_code == 405


# --------------------------------------------------------------------------------------------------- origins


async def test_a_page_of_an_allowed_origin_may_read_everything(tocsin: Served) -> None:
    """The stream, and why it was refused; with its cookies."""
    origin = {"Origin": ORIGIN}
    for path, status in ((tocsin.path("lobby"), 200), (tocsin.path("closed:1"), 403), ("/events", 400)):
        response = await tocsin.http.head(path, headers=origin)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-allow-credentials"] == "true"
        assert response.headers["vary"] == "Origin"
    async with tocsin.http.stream("GET", tocsin.path("lobby"), headers=origin) as stream:
        assert stream.headers["access-control-allow-origin"] == ORIGIN
        assert stream.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_page_of_another_origin_gets_nothing(tocsin: Served, method: str) -> None:
    """403 before anything else is looked at, and nothing that would let the page read even that."""
    response = await tocsin.http.request(
        method, tocsin.path("lobby"), headers={"Origin": "https://evil.example"}
    )
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["vary"] == "Origin"


async def test_a_browser_may_ask_before_it_sends_headers(tocsin: Served) -> None:
    """A page that reads the stream with `fetch`, to send its token in a header, is asked about first."""
    response = await tocsin.http.options(
        tocsin.path("lobby"),
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization,last-event-id",
        },
    )
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == ORIGIN
    allowed = response.headers["access-control-allow-headers"].lower().split(", ")
    assert {"authorization", "last-event-id"} <= set(allowed)
    assert response.headers["access-control-allow-methods"] == "GET"
    assert int(response.headers["access-control-max-age"]) > 0
