"""EventStream over real HTTP, against a server whose responses the tests script."""

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.client.scripts import run_script
from tests.support.timing import QUIET, SOON
from tocsin import (
    BadProtocol,
    Disconnected,
    EventStream,
    PermissionDenied,
    Position,
    State,
    StateChanged,
    Subscribed,
    SubscriptionEnded,
    Unauthorized,
    WrongUse,
    backoff,
)
from tocsin.callbacks import ClientCallbacks
from tocsin.transports import sse


class Script:
    """The responses to the requests in turn: a response, or the texts of a stream (None: it stays open)."""

    def __init__(self) -> None:
        self.url = ""
        self.responses: list[Response | list[str | None]] = []
        self.requests: list[Request] = []
        self.is_closed = asyncio.Event()

    async def respond(self, request: Request) -> Response:
        self.requests.append(request)
        response = self.responses.pop(0)
        if isinstance(response, Response):
            return response
        return StreamingResponse(self._stream(response), media_type="text/event-stream")

    async def _stream(self, texts: list[str | None]) -> AsyncIterator[str]:
        try:
            for text in texts:
                if text is None:
                    await asyncio.Event().wait()
                yield str(text)
        finally:
            self.is_closed.set()


def event(offset: int, rest: str = "", data: Any = None) -> str:
    body = {"channel": "news", "pub": {"data": data or offset, "offset": offset}}
    return f"id: {offset}@E{rest}\ndata: {json.dumps(body)}\n\n"


OPENING = "id: 0@E\nretry: 10\n\n"
DISCONNECT = 'event: disconnect\ndata: {"code":3001,"reason":"shutdown"}\n\n'


@pytest.fixture
async def script(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Script]:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(sse, "SHORTEST_RETRY_SECONDS", 0.01)
    script = Script()
    app = Starlette(routes=[Route("/events", script.respond)])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        script.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(server.serve([listening]))
        yield script
        server.should_exit = server.force_exit = True
        await serving


async def test_publications_are_iterated_and_recovered_after_a_break(script: Script) -> None:
    script.responses = [[OPENING, ": keep alive\n\n", event(1)], [event(2), event(2), event(3), None]]
    async with EventStream(script.url, "news", token="T") as stream:
        assert [(await anext(stream)).data for _ in range(3)] == [1, 2, 3]
        assert stream.recovered is True
        assert stream.position == "3@E"
    first, second = script.requests
    assert first.url.query == "channel=news"
    assert first.headers["authorization"] == "Bearer T"
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "1@E"
    await script.is_closed.wait()


async def test_leaving_a_bare_iteration_closes_the_connection(script: Script) -> None:
    script.responses = [[OPENING, event(1), None]]
    async for publication in EventStream(script.url, ["news"]):
        assert publication.data == 1
        break
    await script.is_closed.wait()


async def test_a_gap_is_reported_in_order_and_to_callbacks(script: Script) -> None:
    gap = {"channel": "news", "from": {"offset": 5, "epoch": "E"}, "to": {"offset": 8, "epoch": "E"}}
    script.responses = [["id: 5@E\n\n", f"event: gap\nid: 8@E\ndata: {json.dumps(gap)}\n\n", event(9), None]]
    reported: list[Any] = []

    async def report(event: Any) -> None:
        reported.append(event)

    callbacks: ClientCallbacks = {"on_state": reported.append, "on_subscribed": report}
    async with EventStream(script.url, "news", since="5@E", **callbacks) as stream:
        assert (await anext(stream)).data == 9
        assert stream.recovered is False
    assert script.requests[0].headers["last-event-id"] == "5@E"
    assert reported == [
        StateChanged(State.CONNECTING, 0, "connect called"),
        StateChanged(State.CONNECTED),
        Subscribed("news", False, Position(8, "E")),
    ]


async def test_a_missing_publication_is_recovered_from_the_last_position(script: Script) -> None:
    script.responses = [[OPENING, event(1), event(3), None], [event(2), event(3), None]]
    async with EventStream(script.url, "news") as stream:
        assert [(await anext(stream)).data for _ in range(3)] == [1, 2, 3]
    assert script.requests[1].headers["last-event-id"] == "1@E"


async def test_a_disconnected_stream_reconnects_after_the_retry_of_the_server(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the backoff: the server spreads the clients that it disconnects."""
    script.responses = [[OPENING, event(1), DISCONNECT], [event(2), None]]
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 600)
    async with EventStream(script.url, "news") as stream, asyncio.timeout(SOON):
        assert [(await anext(stream)).data for _ in range(2)] == [1, 2]


async def test_a_broken_stream_does_not_wait_for_the_retry_of_an_earlier_disconnect(script: Script) -> None:
    """A `retry:` holds only for a disconnect of the server."""
    long_retry = "id: 1@E\nretry: 600000\n\n"
    script.responses = [[OPENING, event(1), DISCONNECT], [long_retry, event(2)], [event(3), None]]
    async with EventStream(script.url, "news") as stream, asyncio.timeout(SOON):
        assert [(await anext(stream)).data for _ in range(3)] == [1, 2, 3]


async def test_the_code_of_a_disconnect_decides_about_reconnecting(script: Script) -> None:
    final = 'event: disconnect\nid: disconnect:3503\ndata: {"code":3503,"reason":"force disconnect"}\n\n'
    script.responses = [[OPENING, DISCONNECT], [event(1), final]]
    async with EventStream(script.url, "news") as stream:
        assert (await anext(stream)).data == 1
        with pytest.raises(Disconnected, match="force disconnect"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_the_end_of_one_channel_is_raised_and_the_others_continue(script: Script) -> None:
    unsubscribe = json.dumps({"channel": "other", "code": 2000, "reason": "server unsubscribe"})
    script.responses = [
        ["id: 0@E,0@E\n\n", f"event: unsubscribe\ndata: {unsubscribe}\n\n", event(1, ",0@E", "go on"), None]
    ]
    async with EventStream(script.url, ["news", "other"]) as stream:
        with pytest.raises(SubscriptionEnded, match="server unsubscribe"):
            await anext(stream)
        assert (await anext(stream)).data == "go on"


@pytest.mark.parametrize(
    ("status", "error"),
    [(204, BadProtocol), (401, Unauthorized), (403, PermissionDenied), (404, BadProtocol)],
)
async def test_a_refusal_is_raised_at_once(script: Script, status: int, error: type[Exception]) -> None:
    body = {"code": 103, "message": "no"}
    script.responses = [JSONResponse(body, status) if status != 204 else Response(status_code=status)]
    async with EventStream(script.url, "news") as stream:
        with pytest.raises(error):
            await anext(stream)


async def test_a_bad_request_is_raised_with_the_message_of_the_server(script: Script) -> None:
    script.responses = [JSONResponse({"code": 107, "message": "no such thing"}, 400)]
    with pytest.raises(Exception, match="no such thing"):
        await anext(EventStream(script.url, "news"))


async def test_a_response_that_is_not_an_event_stream_is_bad_protocol(script: Script) -> None:
    script.responses = [Response("<html>", media_type="text/html")]
    with pytest.raises(BadProtocol, match="not an event stream"):
        await anext(EventStream(script.url, "news"))


async def test_a_server_error_is_tried_again(script: Script) -> None:
    script.responses = [Response(status_code=503), Response("busy", 429), [OPENING, event(1), None]]
    async with EventStream(script.url, "news") as stream:
        assert (await anext(stream)).data == 1


async def test_the_provider_is_called_again_when_the_token_may_have_expired(script: Script) -> None:
    tokens = iter("ABC")

    async def get_token() -> str:
        return next(tokens)

    expired = 'event: disconnect\ndata: {"code":3005,"reason":"connection expired"}\n\n'
    refused = Response(status_code=401)
    script.responses = [[OPENING, event(1), expired], [event(2)], refused, [event(3), None]]
    async with EventStream(script.url, "news", get_token=get_token) as stream:
        assert [(await anext(stream)).data for _ in range(3)] == [1, 2, 3]
    assert [request.headers["authorization"] for request in script.requests] == [
        "Bearer A",
        "Bearer B",
        "Bearer B",
        "Bearer C",
    ]


async def test_a_fresh_token_that_is_refused_is_final(script: Script) -> None:
    async def get_token() -> str:
        return "A"

    script.responses = [Response(status_code=401)]
    with pytest.raises(Unauthorized):
        await anext(EventStream(script.url, "news", get_token=get_token))


async def test_a_failing_provider_is_called_again_and_unauthorized_is_final(script: Script) -> None:
    failures: list[Exception] = [Unauthorized("no session"), OSError("503")]

    async def get_token() -> str:
        raise failures.pop()

    with pytest.raises(Unauthorized, match="no session"):
        await anext(EventStream(script.url, "news", get_token=get_token))


async def test_cancelling_a_reader_closes_the_connection(script: Script) -> None:
    script.responses = [[OPENING, event(1), None]]
    has_read = asyncio.Event()

    async def read() -> None:
        async with EventStream(script.url, "news") as stream:
            async for _ in stream:
                has_read.set()

    task = asyncio.create_task(read())
    await has_read.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await script.is_closed.wait()


async def test_a_subscription_that_the_server_asks_to_renew_is_renewed_by_a_new_connection(
    script: Script,
) -> None:
    """Such as after its token expired: the stream could otherwise stay silent about one channel."""
    unsubscribe = json.dumps({"channel": "other", "code": 2501, "reason": "expired"})
    script.responses = [
        ["id: 0@E,0@E\n\n", f"event: unsubscribe\ndata: {unsubscribe}\n\n", None],
        [event(1, ",0@E"), None],
    ]
    async with EventStream(script.url, ["news", "other"]) as stream:
        assert (await anext(stream)).data == 1
    assert script.requests[1].headers["last-event-id"] == "0@E,0@E"


async def test_a_cancelled_read_does_not_end_the_stream(script: Script) -> None:
    script.responses = [[OPENING, event(1), None], [event(2), None]]
    async with EventStream(script.url, "news") as stream:
        assert (await anext(stream)).data == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), QUIET)
        assert (await anext(stream)).data == 2
    assert script.requests[1].headers["last-event-id"] == "1@E"


async def test_the_query_of_the_base_address_is_sent_too(script: Script) -> None:
    script.responses = [[OPENING, event(1), None]]
    async with EventStream(f"{script.url}/?route=b", ["news", "a&b"]) as stream:
        with pytest.raises(BadProtocol):
            await anext(stream)
    assert script.requests[0].url.query == "route=b&channel=news&channel=a%26b"


async def test_the_token_is_sent_beside_the_user_of_the_address(script: Script) -> None:
    """Both are for ``Authorization``, which has one value. The cookie counts as well."""
    script.responses = [[OPENING, event(1), None]]
    url = script.url.replace("//", "//ada:p%23w@")
    async with EventStream(url, "news", token="T") as stream:
        assert (await anext(stream)).data == 1
    headers = script.requests[0].headers
    assert headers["authorization"] == "Basic " + base64.b64encode(b"ada:p#w").decode()
    assert headers["cookie"] == "tocsin_token=T"


async def test_a_token_is_sent_without_the_line_end_of_its_file(script: Script) -> None:
    script.responses = [[OPENING, event(1), None]]
    async with EventStream(script.url, "news", token="T\n") as stream:
        await anext(stream)
    assert script.requests[0].headers["authorization"] == "Bearer T"
    async with EventStream(script.url, "news", token="T\nX") as stream:
        with pytest.raises(Unauthorized, match="characters that an HTTP header cannot hold"):
            await anext(stream)


async def test_a_refusal_for_now_is_repeated_after_the_time_that_it_names(script: Script) -> None:
    script.responses = [Response(status_code=503, headers={"Retry-After": "1"}), [OPENING, event(1), None]]
    started = asyncio.get_running_loop().time()
    async with EventStream(script.url, "news") as stream:
        assert (await anext(stream)).data == 1
    assert asyncio.get_running_loop().time() - started >= 1


async def test_an_event_that_refuses_the_stream_for_now_is_a_reason_to_reconnect(script: Script) -> None:
    refused = 'event: refused\ndata: {"code":111,"message":"the node stops"}\n\n'
    script.responses = [[refused], [OPENING, event(1), None]]
    reasons: list[str] = []
    callbacks: ClientCallbacks = {"on_state": lambda change: reasons.append(change.reason)}
    async with EventStream(script.url, "news", **callbacks) as stream:
        assert (await anext(stream)).data == 1
    assert "the node stops" in reasons


async def test_a_redirect_is_an_error_that_names_the_other_address(script: Script) -> None:
    script.responses = [Response(status_code=308, headers={"Location": "https://push.example/events"})]
    async with EventStream(script.url, "news") as stream:
        with pytest.raises(BadProtocol, match=r"HTTP 308, a redirect to https://push\.example/events"):
            await anext(stream)


async def test_a_second_event_loop_cannot_iterate_an_event_stream(script: Script) -> None:
    """The iteration would otherwise end, as if nothing followed."""
    script.responses = [[OPENING, event(1), None]]
    stream = EventStream(script.url, "news")

    async def read() -> Any:
        return (await anext(stream)).data

    def read_twice() -> None:
        assert asyncio.run(read()) == 1
        with pytest.raises(WrongUse, match="another event loop"):
            asyncio.run(read())

    await asyncio.to_thread(read_twice)
    await script.is_closed.wait()


FORKING = """
    import asyncio, os, sys
    from tocsin import EventStream, WrongUse

    async def main():
        async with EventStream(sys.argv[1], "news") as stream:
            await anext(stream)
            child = os.fork()
            if not child:
                try:
                    anext(stream).send(None)
                except WrongUse as error:
                    assert "after a fork" in str(error)
                    try:
                        stream.close().send(None)
                    except StopIteration:
                        os._exit(0)
                os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            print((await anext(stream)).data)

    asyncio.run(main())
"""


async def test_a_forked_process_cannot_use_the_event_stream_of_its_parent(script: Script) -> None:
    script.responses = [[OPENING, event(1), event(2), None]]
    assert await asyncio.to_thread(run_script, FORKING, script.url) == "2\n"
