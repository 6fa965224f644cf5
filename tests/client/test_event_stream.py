"""EventStream over real HTTP: a uvicorn whose every answer a test writes itself."""

import asyncio
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

from tests.support.timing import SOON
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
    backoff,
)
from tocsin.callbacks import ClientCallbacks


class Script:
    """What to answer to each request in turn: a response, or the text of a stream (None: and stay open)."""

    def __init__(self) -> None:
        self.url = ""
        self.acts: list[Response | list[str | None]] = []
        self.requests: list[Request] = []
        self.is_left = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        self.requests.append(request)
        act = self.acts.pop(0)
        if isinstance(act, Response):
            return act
        return StreamingResponse(self._stream(act), media_type="text/event-stream")

    async def _stream(self, texts: list[str | None]) -> AsyncIterator[str]:
        try:
            for text in texts:
                if text is None:
                    await asyncio.Event().wait()
                yield str(text)
        finally:
            self.is_left.set()


def event(offset: int, rest: str = "", data: Any = None) -> str:
    body = {"channel": "news", "pub": {"data": data or offset, "offset": offset}}
    return f"id: {offset}@E{rest}\ndata: {json.dumps(body)}\n\n"


OPENING = "id: 0@E\nretry: 10\n\n"
MOVED = 'event: disconnect\ndata: {"code":3001,"reason":"shutdown"}\n\n'


@pytest.fixture
async def script(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Script]:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)
    script = Script()
    app = Starlette(routes=[Route("/events", script.answer)])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        script.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        serving = asyncio.create_task(server.serve([listener]))
        yield script
        server.should_exit = server.force_exit = True
        await serving


async def test_messages_are_iterated_and_the_place_is_resumed_after_a_break(script: Script) -> None:
    script.acts = [[OPENING, ": keep alive\n\n", event(1)], [event(2), event(2), event(3), None]]
    async with EventStream(script.url, "news", token="T") as stream:
        assert [(await anext(stream)).data for _ in range(3)] == [1, 2, 3]
        assert stream.recovered is True
        assert stream.position == "3@E"
    first, second = script.requests
    assert first.url.query == "channel=news"
    assert first.headers["authorization"] == "Bearer T"
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "1@E"
    await script.is_left.wait()


async def test_a_bare_iteration_works_and_leaving_it_closes_the_connection(script: Script) -> None:
    script.acts = [[OPENING, event(1), None]]
    async for publication in EventStream(script.url, ["news"]):
        assert publication.data == 1
        break
    await script.is_left.wait()


async def test_a_gap_is_visible_in_order_and_to_callbacks(script: Script) -> None:
    gap = {"channel": "news", "from": {"offset": 5, "epoch": "E"}, "to": {"offset": 8, "epoch": "E"}}
    script.acts = [["id: 5@E\n\n", f"event: gap\nid: 8@E\ndata: {json.dumps(gap)}\n\n", event(9), None]]
    told: list[Any] = []

    async def tell(event: Any) -> None:
        told.append(event)

    callbacks: ClientCallbacks = {"on_state": told.append, "on_subscribed": tell}
    async with EventStream(script.url, "news", since="5@E", **callbacks) as stream:
        assert (await anext(stream)).data == 9
        assert stream.recovered is False
    assert script.requests[0].headers["last-event-id"] == "5@E"
    assert told == [
        StateChanged(State.CONNECTING, 0, "connect called"),
        StateChanged(State.CONNECTED),
        Subscribed("news", False, Position(8, "E")),
    ]


async def test_a_hole_is_read_again_from_the_last_good_place(script: Script) -> None:
    script.acts = [[OPENING, event(1), event(3), None], [event(2), event(3), None]]
    async with EventStream(script.url, "news") as stream:
        assert [(await anext(stream)).data for _ in range(3)] == [1, 2, 3]
    assert script.requests[1].headers["last-event-id"] == "1@E"


async def test_who_is_sent_away_comes_back_when_the_server_said(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the backoff, which knows nothing of how many others were sent away."""
    script.acts = [[OPENING, event(1), MOVED], [event(2), None]]
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 600)
    async with EventStream(script.url, "news") as stream, asyncio.timeout(SOON):
        assert [(await anext(stream)).data for _ in range(2)] == [1, 2]


async def test_who_was_sent_away_once_does_not_wait_as_long_after_a_break(script: Script) -> None:
    """What a server says of one goodbye holds for that one."""
    patient = "id: 1@E\nretry: 600000\n\n"
    script.acts = [[OPENING, event(1), MOVED], [patient, event(2)], [event(3), None]]
    async with EventStream(script.url, "news") as stream, asyncio.timeout(SOON):
        assert [(await anext(stream)).data for _ in range(3)] == [1, 2, 3]


async def test_a_disconnect_says_by_its_code_whether_to_come_back(script: Script) -> None:
    final = 'event: disconnect\nid: disconnect:3503\ndata: {"code":3503,"reason":"force disconnect"}\n\n'
    script.acts = [[OPENING, MOVED], [event(1), final]]
    async with EventStream(script.url, "news") as stream:
        assert (await anext(stream)).data == 1
        with pytest.raises(Disconnected, match="force disconnect"):
            await anext(stream)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_the_end_of_one_channel_is_raised_and_the_others_go_on(script: Script) -> None:
    over = json.dumps({"channel": "other", "code": 2000, "reason": "server unsubscribe"})
    script.acts = [
        ["id: 0@E,0@E\n\n", f"event: unsubscribe\ndata: {over}\n\n", event(1, ",0@E", "go on"), None]
    ]
    async with EventStream(script.url, ["news", "other"]) as stream:
        with pytest.raises(SubscriptionEnded, match="server unsubscribe"):
            await anext(stream)
        assert (await anext(stream)).data == "go on"


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, Unauthorized), (403, PermissionDenied), (404, BadProtocol)],
)
async def test_a_refusal_is_raised_at_once(script: Script, status: int, error: type[Exception]) -> None:
    script.acts = [JSONResponse({"code": 103, "message": "no"}, status)]
    async with EventStream(script.url, "news") as stream:
        with pytest.raises(error):
            await anext(stream)


async def test_a_bad_request_says_what_the_server_says(script: Script) -> None:
    script.acts = [JSONResponse({"code": 107, "message": "no such thing"}, 400)]
    with pytest.raises(Exception, match="no such thing"):
        await anext(EventStream(script.url, "news"))


async def test_what_is_no_event_stream_is_named_so(script: Script) -> None:
    script.acts = [Response("<html>", media_type="text/html")]
    with pytest.raises(BadProtocol, match="not an event stream"):
        await anext(EventStream(script.url, "news"))


async def test_a_server_in_trouble_is_tried_again(script: Script) -> None:
    script.acts = [Response(status_code=503), Response("busy", 429), [OPENING, event(1), None]]
    async with EventStream(script.url, "news") as stream:
        assert (await anext(stream)).data == 1


async def test_a_token_is_asked_for_again_when_it_may_have_expired(script: Script) -> None:
    tokens = iter("ABC")

    async def get_token() -> str:
        return next(tokens)

    expired = 'event: disconnect\ndata: {"code":3005,"reason":"connection expired"}\n\n'
    refused = Response(status_code=401)
    script.acts = [[OPENING, event(1), expired], [event(2)], refused, [event(3), None]]
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

    script.acts = [Response(status_code=401)]
    with pytest.raises(Unauthorized):
        await anext(EventStream(script.url, "news", get_token=get_token))


async def test_a_failing_provider_is_asked_again_and_one_that_gives_up_is_believed(script: Script) -> None:
    failures: list[Exception] = [Unauthorized("no session"), OSError("503")]

    async def get_token() -> str:
        raise failures.pop()

    with pytest.raises(Unauthorized, match="no session"):
        await anext(EventStream(script.url, "news", get_token=get_token))


async def test_cancelling_a_reader_closes_the_connection(script: Script) -> None:
    script.acts = [[OPENING, event(1), None]]
    heard = asyncio.Event()

    async def read() -> None:
        async with EventStream(script.url, "news") as stream:
            async for _ in stream:
                heard.set()

    task = asyncio.create_task(read())
    await heard.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await script.is_left.wait()
