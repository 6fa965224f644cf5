"""The clients of the HTTP API over real HTTP, plain and async."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from tests.support.timing import SOON, TICK
from tocsin import (
    AsyncPublisher,
    BadProtocol,
    CallError,
    ClientInfo,
    Disconnected,
    PermissionDenied,
    Position,
    PresenceStats,
    Publication,
    Publisher,
    ServerUnreachable,
    TimedOut,
    Unauthorized,
    api,
    backoff,
)

Json = dict[str, Any]


class Script:
    """The responses in turn: (status, text), or None to break the connection."""

    def __init__(self) -> None:
        self.url = ""
        self.responses: list[tuple[int, str] | None] = []
        self.requests: list[tuple[str, str | None, Json]] = []

    def result(self, result: Json) -> None:
        self.responses.append((200, json.dumps({"result": result})))

    def error(self, code: int, message: str) -> None:
        self.responses.append((200, json.dumps({"error": {"code": code, "message": message}})))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.001)
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            script.requests.append((self.path, self.headers["X-API-Key"], json.loads(body)))
            response = script.responses.pop(0)
            if response is not None:
                text = response[1].encode()
                self.send_response(response[0])
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 # its name upstream

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        script.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield script
        server.shutdown()
        thread.join()


@pytest.fixture
def redirecting() -> Iterator[str]:
    """The address of a server that sends every call elsewhere, as a proxy does from HTTP to HTTPS."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(308)
            self.send_header("Location", f"https://push.example{self.path}")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 # its name upstream

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


Do = Callable[[str, str, api.Call[Any]], Any]


def plainly(url: str, key: str, call: api.Call[Any]) -> Any:
    with Publisher(url, key) as publisher:
        return publisher.send(call)


def asynchronously(url: str, key: str, call: api.Call[Any]) -> Any:
    async def send() -> Any:
        async with AsyncPublisher(url, key) as publisher:
            return await publisher.send(call)

    return asyncio.run(send())


@pytest.fixture(params=[plainly, asynchronously])
def do(request: pytest.FixtureRequest) -> Do:
    function: Do = request.param
    return function


def test_both_publishers_have_every_call_as_a_method() -> None:
    names = {name for name in vars(api) if getattr(getattr(api, name), "__module__", "") == api.__name__}
    calls = {
        name for name in names if not name.startswith("_") and name not in ("Call", "T", "read_response")
    }
    assert len(calls) == 20
    for kind in (Publisher, AsyncPublisher):
        assert calls <= {name for name in vars(kind) if getattr(kind, name).__doc__}


def test_a_publication_is_sent_with_its_key_and_returns_its_position(script: Script, do: Do) -> None:
    script.result({"offset": 5, "epoch": "E"})
    call = api.publish("news", {"a": None}, tags={"k": "v"}, idempotency_key="once")
    assert do(script.url, "KEY", call) == Position(5, "E")
    body = {"channel": "news", "data": {"a": None}, "tags": {"k": "v"}, "idempotency_key": "once"}
    assert script.requests == [("/api/publish", "KEY", body)]


def test_methods_send_the_calls_of_the_same_name(script: Script) -> None:
    script.result({})
    script.result({"offset": 1, "epoch": "E"})
    with Publisher(script.url) as publisher:
        assert publisher.publish("news", None) is None

    async def publish() -> Position | None:
        async with AsyncPublisher(script.url) as publisher:
            return await publisher.publish("news", 0)

    assert asyncio.run(publish()) == Position(1, "E")
    assert [body["data"] for _, _, body in script.requests] == [None, 0]
    assert script.requests[0][1] is None


def test_a_broken_connection_repeats_the_call_with_the_same_idempotency_key(script: Script, do: Do) -> None:
    """So a call that was done before the break does not publish twice."""
    script.responses = [None, (503, "starting")]
    script.result({"offset": 1, "epoch": "E"})
    assert do(script.url, "", api.publish("news", 1)) == Position(1, "E")
    keys = {body["idempotency_key"] for _, _, body in script.requests}
    assert len(script.requests) == 3
    assert len(keys) == 1
    assert keys != {""}


def test_an_unreachable_server_is_an_error_of_its_own(script: Script, do: Do) -> None:
    script.responses = [None, (502, "<html>"), (503, '{"code":100,"message":"the node stops"}')]
    with pytest.raises(ServerUnreachable, match="cannot be reached: HTTP 503, 'the node stops'"):
        do(script.url, "", api.info())
    with pytest.raises(ServerUnreachable):
        do("http://127.0.0.1:9", "", api.info())


@pytest.mark.parametrize(
    ("response", "error", "words"),
    [
        ((401, ""), Unauthorized, "API key"),
        ((200, '{"error":{"code":102,"message":"unknown channel"}}'), CallError, "unknown channel"),
        ((200, '{"error":{"code":103,"message":"permission denied"}}'), PermissionDenied, "denied"),
        ((404, '{"code":102,"message":"unknown channel"}'), CallError, "unknown channel"),
        ((404, "<html>"), BadProtocol, "<html>"),
        ((200, "<html>"), BadProtocol, "not of this protocol"),
        ((200, "{}"), BadProtocol, "answered 200"),
        ((200, "[]"), BadProtocol, "answered 200"),
        ((400, "not JSON"), BadProtocol, "not JSON"),
    ],
)
def test_each_failure_has_its_exception(
    script: Script, do: Do, response: tuple[int, str], error: type[Exception], words: str
) -> None:
    script.responses = [response]
    with pytest.raises(error, match=words):
        do(script.url, "", api.publish("news", 1))
    assert len(script.requests) == 1


def test_a_call_without_a_response_times_out(script: Script) -> None:
    released = threading.Event()

    class Silent(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            released.wait(SOON)

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002 # its name upstream

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        with (
            Publisher(f"http://127.0.0.1:{server.server_port}", timeout_seconds=0.05) as publisher,
            pytest.raises(TimedOut),
        ):
            publisher.publish("news", 1)
        released.set()
        server.shutdown()
        thread.join()


def test_broadcast_and_batch_return_an_outcome_for_each_channel_and_call(script: Script, do: Do) -> None:
    refused = {"error": {"code": 102, "message": "unknown channel"}}
    script.result({"responses": [{"result": {"offset": 1, "epoch": "E"}}, refused, {"result": {}}]})
    first, second, third = do(script.url, "", api.broadcast(["a", "x:b", "c"], 1))
    assert (first, third) == (Position(1, "E"), None)
    assert isinstance(second, CallError)

    script.responses = [(200, json.dumps({"replies": [{"publish": {"offset": 2, "epoch": "E"}}, refused]}))]
    calls: list[api.Call[Any]] = [api.publish("a", 1, idempotency_key="k"), api.presence_stats("x:b")]
    first, second = do(script.url, "", api.batch(calls))
    assert first == Position(2, "E")
    assert isinstance(second, CallError)
    assert script.requests[-1][2]["commands"] == [
        {"publish": {"channel": "a", "data": 1, "idempotency_key": "k"}},
        {"presence_stats": {"channel": "x:b"}},
    ]


def test_queries_return_values(script: Script, do: Do) -> None:
    script.result({"presence": {"c": {"user": "u", "client": "c"}}})
    assert do(script.url, "", api.presence("a")) == {"c": ClientInfo("u", "c")}
    script.result({"num_clients": 2, "num_users": 1})
    assert do(script.url, "", api.presence_stats("a")) == PresenceStats(2, 1)
    kept = [{"data": 1, "offset": 3}, {"b64data": "AP8=", "offset": 4}]
    script.result({"publications": kept, "epoch": "E", "offset": 9})
    page = do(script.url, "", api.history("a", limit=1, since=Position(2, "E")))
    assert page.publications == [Publication("a", 1, 3, "E"), Publication("a", b"\x00\xff", 4, "E")]
    assert page.position == Position(9, "E")
    script.result({"channels": {"a": {"num_clients": 3}}})
    assert do(script.url, "", api.channels("a*")) == {"a": 3}
    script.result({"nodes": [{"uid": "n", "name": "one"}]})
    assert do(script.url, "", api.info()) == [{"uid": "n", "name": "one"}]
    assert script.requests[2][2] == {"channel": "a", "limit": 1, "since": {"offset": 2, "epoch": "E"}}


def test_zero_values_are_left_out_of_calls(script: Script, do: Do) -> None:
    calls: list[tuple[api.Call[None], Json]] = [
        (api.history_remove("a"), {"channel": "a"}),
        (api.disconnect("u"), {"user": "u"}),
        (
            api.disconnect("u", whitelist=["c"], code=4000, reason="go"),
            {"user": "u", "whitelist": ["c"], "disconnect": {"code": 4000, "reason": "go"}},
        ),
        (api.unsubscribe("u", "a"), {"user": "u", "channel": "a"}),
        (
            api.subscribe("u", "a", info=0, recover_since=Position(1, "E")),
            {"user": "u", "channel": "a", "info": 0, "recover_since": {"offset": 1, "epoch": "E"}},
        ),
        (api.refresh("u", expired=True), {"user": "u", "expired": True}),
        (api.revoke_token("t", expire_at=9), {"uid": "t", "expire_at": 9}),
        (
            api.invalidate_user_tokens("u", issued_before=5, channel="a"),
            {"user": "u", "issued_before": 5, "channel": "a"},
        ),
    ]
    for call, body in calls:
        script.result({})
        assert do(script.url, "", call) is None
        assert script.requests[-1] == (f"/api/{call.method}", None, body)


def test_a_redirect_is_an_error_that_names_the_other_address(redirecting: str, do: Do) -> None:
    with pytest.raises(BadProtocol, match=r"HTTP 308, a redirect to https://push\.example/api"):
        do(redirecting, "", api.info())


def test_an_api_key_is_sent_without_the_line_end_of_its_file(script: Script, do: Do) -> None:
    script.result({})
    do(script.url, "KEY\r\n", api.publish("news", 1))
    assert script.requests[0][1] == "KEY"
    with pytest.raises(ValueError, match="the API key has characters") as caught:
        do(script.url, "SECRET\nX-Other: 1", api.info())
    assert "SECRET" not in str(caught.value)
    with pytest.raises(ValueError, match="the API key has characters"):
        do(script.url, "clé", api.info())


def test_the_query_of_the_base_address_is_sent_too(script: Script, do: Do) -> None:
    script.result({})
    do(f"{script.url}?route=b", "", api.publish("news", 1))
    assert script.requests[0][0] == "/api/publish?route=b"


def test_no_error_repeats_the_password_of_the_address(script: Script, do: Do) -> None:
    script.responses = [(404, "<html>")]
    with pytest.raises(BadProtocol) as caught:
        do(script.url.replace("//", "//ada:secret@"), "", api.info())
    assert "secret" not in str(caught.value)


def test_a_cancelled_call_does_not_affect_the_next_one(script: Script) -> None:
    async def run() -> None:
        async with AsyncPublisher(script.url) as publisher:
            script.responses = [None, None, None]
            call = asyncio.create_task(publisher.publish("news", 1))
            await asyncio.sleep(0)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            script.responses = []
            script.result({})
            assert await publisher.publish("news", 2) is None

    asyncio.run(run())


def test_closing_ends_the_wait_before_the_next_attempt(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call raises ``Disconnected`` at once, in its thread."""
    monkeypatch.setattr(backoff, "delay", lambda *_: 100 * SOON)
    script.responses.append((503, ""))
    publisher = Publisher(script.url)
    raised: list[str] = []

    def publish() -> None:
        try:
            publisher.publish("news", 1)
        except Disconnected as error:
            raised.append(error.reason)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    while not script.requests or script.responses:
        time.sleep(TICK)
    publisher.close()
    thread.join(SOON)
    assert raised == ["the publisher is closed"]
    assert len(script.requests) == 1
    assert not publisher._clients._wakers


def test_closing_is_why_the_last_attempt_of_another_thread_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error does not say that the server cannot be reached."""
    publisher = Publisher("http://127.0.0.1:1")

    def breaks(*_: object, **__: object) -> httpx.Response:
        thread = threading.Thread(target=publisher.close)
        thread.start()
        thread.join(SOON)
        raise httpx.ReadError("Bad file descriptor")

    monkeypatch.setattr("tocsin.publisher.ATTEMPTS", 1)
    monkeypatch.setattr("tocsin.publisher.post", breaks)
    with pytest.raises(Disconnected, match="closed"):
        publisher.publish("news", 1)


def test_a_call_is_not_sent_if_another_thread_closes_while_its_connections_are_made(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is needed for TLS takes milliseconds."""
    publisher = Publisher(script.url)
    new_client = publisher._clients._new_client

    def new_client_meanwhile() -> Any:
        thread = threading.Thread(target=publisher.close)
        thread.start()
        thread.join(SOON)
        return new_client()

    monkeypatch.setattr(publisher._clients, "_new_client", new_client_meanwhile)
    with pytest.raises(Disconnected, match="closed"):
        publisher.publish("news", 1)
    assert not script.requests


@pytest.mark.parametrize("is_other_loop", [False, True])
async def test_closing_ends_the_wait_of_a_task_before_the_next_attempt(
    script: Script, monkeypatch: pytest.MonkeyPatch, *, is_other_loop: bool
) -> None:
    """As does closing in another event loop."""
    monkeypatch.setattr(backoff, "delay", lambda *_: 100 * SOON)
    script.responses.append((503, ""))
    publisher = AsyncPublisher(script.url)
    task = asyncio.create_task(publisher.publish("news", 1))
    async with asyncio.timeout(SOON):
        while not script.requests or not publisher._clients._wakers:  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(TICK)
        if is_other_loop:
            await asyncio.to_thread(lambda: asyncio.run(publisher.close()))
        else:
            await publisher.close()
        with pytest.raises(Disconnected, match="closed"):
            await task
    assert len(script.requests) == 1
    assert not publisher._clients._wakers
