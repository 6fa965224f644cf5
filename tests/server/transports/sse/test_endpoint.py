"""Requests that are answered with a status instead of a stream, HEAD requests, and origins."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from structlog.typing import EventDict

from tests.server.transports.sse.stream_server import ORIGIN, StreamServer, stream_server
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
        ("channel=a&since=1@a", 400, 107, '"since"'),
        ("channel=a&Channel=b", 400, 107, '"Channel"'),
        ("channel=a&lastEventId=nonsense", 400, 107, "nonsense"),
    ],
)
async def test_a_refused_request_has_a_status_a_code_and_a_message(
    server: StreamServer, query: str, status: int, code: int, says: str
) -> None:
    """The status is for the browser, code and message for the author of the page. No connection is left."""
    response = await server.http.get(f"/events?{query}")
    body = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert says in body["message"]
    assert response.headers["cache-control"] == "no-store"
    assert response.headers.get("www-authenticate") == ("Bearer" if status == 401 else None)
    assert (await server.http.head(f"/events?{query}")).status_code == status
    await server.until_empty()


async def test_a_missing_token_is_401_where_anonymous_clients_are_not_allowed() -> None:
    """Like an invalid token; the message says that a token is needed."""
    async with stream_server(client={"allow_anonymous": False}) as server:
        response = await server.http.get(server.path("lobby"))
        assert (response.status_code, response.json()["code"]) == (401, 101)
        assert "token" in response.json()["message"]
        async with server.stream("lobby", token=connection_token("ann")):
            pass


async def test_an_invalid_last_event_id_header_is_refused_like_the_query(server: StreamServer) -> None:
    """It is the id of a stream with other channels."""
    response = await server.http.get(server.path("a", "b"), headers={"Last-Event-ID": "1@abc"})
    assert (response.status_code, response.json()["code"]) == (400, 107)


@pytest.mark.parametrize("name", ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID"])
async def test_a_polyfill_recovers_by_its_own_spelling_of_the_last_event_id(
    server: StreamServer, channel: Name, name: str
) -> None:
    """The most used ones send a parameter instead of the header, some of them with `padding`."""
    recovered = channel("history")
    position = await server.publish(recovered, 1, 2, 3)
    query = {name: f"1@{position.epoch}", "padding": "true"}
    async with server.stream(recovered, query=query) as stream:
        assert await stream.numbers(2) == [2, 3]


async def test_headers_with_different_last_event_ids_are_refused(server: StreamServer) -> None:
    """Neither is known to be the newer one."""
    headers = [("Last-Event-ID", "1@abc"), ("Last-Event-ID", "2@abc")]
    response = await server.http.get(server.path("a"), headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, 107)


async def test_a_refused_request_leaves_a_line_in_the_log(
    server: StreamServer, log_lines: list[EventDict]
) -> None:
    """With its status and the reason, and without its token."""
    await server.http.get("/events?channel=a&token=secret")
    (line,) = (line for line in log_lines if line["event"] == "request_refused")
    assert (line["transport"], line["status"], line["reason"]) == ("sse", 401, "invalid token")
    assert "secret" not in str(log_lines)


async def test_too_many_connections_of_a_user_are_refused() -> None:
    """With 429; the first stream continues."""
    async with stream_server(client={"user_connection_limit": 1}) as server:
        token = connection_token("ann")
        async with server.stream("lobby", token=token) as stream:
            response = await server.http.get(server.path("lobby", token=token))
            assert (response.status_code, response.json()["code"]) == (429, 106)
            await server.publish("lobby", 1)
            assert await stream.numbers(1) == [1]


async def test_an_engine_error_is_503(
    server: StreamServer, channel: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client may retry, and no channel is left half subscribed."""

    async def fail(*_: object) -> History:
        raise EngineError("gone")

    monkeypatch.setattr(server.node.engine.broker, "read_history", fail)
    monkeypatch.setattr(server.node.engine.broker, "read_history_now", lambda *_: None)
    response = await server.http.get(server.path("lobby", channel("history")))
    assert (response.status_code, response.json()["code"]) == (503, 100)
    assert int(response.headers["retry-after"]) > 0
    await server.until_empty()


EVENT_SOURCE = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
"""The headers of an EventSource (HTML standard §9.2.2, Fetch standard)."""


async def test_an_event_source_that_is_refused_for_now_comes_back(
    server: StreamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A status other than 200 would stop it for good. It gets a stream that ends, and the time to wait."""

    async def fail(*_: object) -> History:
        raise EngineError("gone")

    monkeypatch.setattr(server.node.engine.broker, "read_history", fail)
    monkeypatch.setattr(server.node.engine.broker, "read_history_now", lambda *_: None)
    response = await server.http.get(server.path("history:1"), headers=EVENT_SOURCE)
    assert (response.status_code, response.headers["content-type"][:17]) == (200, "text/event-stream")
    kind, retry, data = response.text.strip().split("\n")
    assert kind == "event: refused"
    assert 2500 <= int(retry.removeprefix("retry: ")) <= 7500
    assert json.loads(data.removeprefix("data: "))["code"] == 100
    head = await server.http.head(server.path("history:1"), headers=EVENT_SOURCE)
    assert head.status_code == 200, "HEAD reads no history"
    library = {**EVENT_SOURCE, "Cache-Control": "no-store"}
    assert (await server.http.get(server.path("history:1"), headers=library)).status_code == 503


async def test_a_request_beyond_a_rate_is_refused_for_now() -> None:
    """An EventSource comes back, and HEAD uses nothing of the rate."""
    async with stream_server(limits={"new_channel_rate": 0.001, "new_channel_burst": 1}) as server:
        for _ in range(3):
            assert (await server.http.head(server.path("lobby"))).status_code == 200
        async with server.stream("lobby"):
            response = await server.http.get(server.path("history:1"))
            assert (response.status_code, response.json()["code"]) == (429, 111)
            response = await server.http.get(server.path("history:1"), headers=EVENT_SOURCE)
            assert (response.status_code, "too many requests" in response.text) == (200, True)


async def test_an_event_source_of_a_user_with_too_many_connections_comes_back() -> None:
    """One of them may be that of a client that is gone and not yet noticed."""
    async with stream_server(client={"user_connection_limit": 1}) as server:
        path = server.path("lobby", token=connection_token("ann"))
        async with server.stream("lobby", token=connection_token("ann")):
            response = await server.http.get(path, headers=EVENT_SOURCE)
            assert (response.status_code, "the limit of connections of a user is 1" in response.text) == (
                200,
                True,
            )
        final = await server.http.get(server.path("closed:1"), headers=EVENT_SOURCE)
        assert final.status_code == 403, "it is pointless to come back"


async def test_a_head_request_changes_nothing(server: StreamServer, channel: Name) -> None:
    """It gets the headers of a stream. No client is present or joins, and no channel is subscribed."""
    room = channel("seen")
    token = connection_token("ann", channels=["closed:1"])
    async with server.stream(room) as watcher:
        assert (await watcher.next()).kind == "join"
        head = await server.http.head(server.path(room, "closed:1", token=token))
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-type"].startswith("text/event-stream")
        assert await watcher.is_quiet()
        assert list(server.node.hub.channels) == [room]
        assert len(server.node.hub) == 1


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_other_methods_are_not_allowed(server: StreamServer, method: str) -> None:
    """Streams are read with GET."""
    assert (await server.http.request(method, server.path("lobby"))).status_code == 405


# --------------------------------------------------------------------------------------------------- origins


async def test_a_page_of_an_allowed_origin_may_read_everything(server: StreamServer) -> None:
    """Streams and refusals, with its cookies."""
    origin = {"Origin": ORIGIN}
    for path, status in ((server.path("lobby"), 200), (server.path("closed:1"), 403), ("/events", 400)):
        response = await server.http.head(path, headers=origin)
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["access-control-allow-credentials"] == "true"
        assert response.headers["vary"] == "Origin"
    async with server.http.stream("GET", server.path("lobby"), headers=origin) as stream:
        assert stream.headers["access-control-allow-origin"] == ORIGIN
        assert stream.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_a_page_of_another_origin_is_refused(server: StreamServer, method: str) -> None:
    """With 403 before any other check, and without headers that would let the page read it."""
    response = await server.http.request(
        method, server.path("lobby"), headers={"Origin": "https://evil.example"}
    )
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["vary"] == "Origin"


async def test_a_preflight_request_allows_the_headers_of_a_stream(server: StreamServer) -> None:
    """A browser sends one before a page reads the stream with `fetch` and a token in a header."""
    response = await server.http.options(
        server.path("lobby"),
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


async def test_a_preflight_request_allows_the_headers_of_tracing_libraries(server: StreamServer) -> None:
    """They add their own to every request of a page. What is no header name is not repeated."""
    asked = "authorization, traceparent,baggage,sentry-trace,x-datadog-origin, <script>"
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": asked,
    }
    response = await server.http.options(server.path("lobby"), headers=headers)
    allowed = set(response.headers["access-control-allow-headers"].split(", "))
    assert {"traceparent", "baggage", "sentry-trace", "x-datadog-origin"} <= allowed
    assert "<script>" not in allowed


async def test_a_page_of_any_origin_reads_without_cookies_where_the_pattern_is_a_star() -> None:
    """Otherwise every page could read as its visitor. A named origin may send its cookie."""
    cookie = {"Cookie": f"tocsin_token={connection_token('ann')}"}
    sections: dict[str, Any] = {
        "client": {"allow_anonymous": False},
        "server": {"allowed_origins": ["*", ORIGIN]},
    }
    async with stream_server(**sections) as server:
        other = await server.http.head(
            server.path("lobby"), headers={"Origin": "https://other.example", **cookie}
        )
        assert other.status_code == 401, "the cookie does not count"
        assert other.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in other.headers
        for headers in ({"Origin": ORIGIN}, {}):
            named = await server.http.head(server.path("lobby"), headers={**headers, **cookie})
            assert named.status_code == 200


@pytest.mark.parametrize("name", ["Cookie", "Authorization"])
async def test_a_request_with_two_different_tokens_is_refused(server: StreamServer, name: str) -> None:
    """Cookies of one name may be of two paths or domains, and each names another user."""
    prefix = "tocsin_token=" if name == "Cookie" else "Bearer "
    ann, bob = (f"{prefix}{connection_token(user)}" for user in ("ann", "bob"))
    twice = await server.http.head(server.path("lobby"), headers=[(name, ann), (name, ann)])
    assert twice.status_code == 200
    both = await server.http.get(server.path("lobby"), headers=[(name, ann), (name, bob)])
    assert (both.status_code, "several tokens" in both.json()["message"]) == (400, True)
    query = f"/events?channel=lobby&token={connection_token('ann')}&token={connection_token('bob')}"
    assert (await server.http.get(query)).status_code == 400


async def test_one_cookie_header_with_two_tokens_is_refused(server: StreamServer) -> None:
    cookies = f"tocsin_token={connection_token('ann')}; a=1; tocsin_token={connection_token('bob')}"
    response = await server.http.get(server.path("lobby"), headers={"Cookie": cookies})
    assert response.status_code == 400
