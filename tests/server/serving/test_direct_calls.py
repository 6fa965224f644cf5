"""Calls of the API without ASGI are answered as those that take the way of ASGI."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.server.served_node import ServedNode, settings_of
from tests.support.raw_connection import RawConnection
from tocsin_server.access import DirectApi
from tocsin_server.api.application import Api
from tocsin_server.api.http import ApiResponse
from tocsin_server.app import TocsinApp, create_app
from tocsin_server.config.options import ServerOptions
from tocsin_server.serving.http_limits import HttpProtocol
from tocsin_server.serving.server import serving

KEY = b"X-API-Key: the key\r\n"
PUBLISH = b'{"channel":"log:1","data":1}'
MANY = b'{"commands":[%b],"parallel":true}' % b",".join([b'{"publish":%b}' % PUBLISH] * 3)


class OtherApp(TocsinApp):
    """An application of an embedding program, which may answer anything itself."""


@asynccontextmanager
async def served(kind: type[TocsinApp] = TocsinApp) -> AsyncIterator[ServedNode]:
    """Serve a node that requires a key. Only TocsinApp itself is passed calls without ASGI."""
    app = create_app(settings_of({"api": {"insecure": False, "keys": ["the key"], "body_limit_bytes": 4096}}))
    app.__class__ = kind
    async with serving(app, ServerOptions(port=0)) as server:
        yield ServedNode(app.state.node, server)


def call(path: bytes, body: bytes, headers: bytes = KEY) -> bytes:
    """A request to the API."""
    head = b"POST %b HTTP/1.1\r\nHost: here\r\n%bContent-Length: %d\r\n\r\n"
    return head % (path, headers, len(body)) + body


REQUESTS = {
    "publish": call(b"/api/publish", PUBLISH),
    "batch": call(b"/api/batch", MANY),
    "legacy": call(b"/api", b'{"method":"publish","params":%b}' % PUBLISH),
    "a member that is null": call(b"/api/publish", b'{"channel":"log:1","data":1,"tags":null}'),
    "a query": call(b"/api/publish?a=b", PUBLISH),
    "wrong key": call(b"/api/publish", PUBLISH, b"X-API-Key: other\r\n"),
    "no key": call(b"/api/publish", PUBLISH, b""),
    "key in the address": call(b"/api/publish?api_key=k", PUBLISH, b""),
    "another method": call(b"/api/nothing", PUBLISH),
    "GET": b"GET /api/publish HTTP/1.1\r\nHost: here\r\n\r\n",
    "not JSON": call(b"/api/publish", b"nonsense"),
    "no body": call(b"/api/publish", b""),
    "unknown namespace": call(b"/api/publish", b'{"channel":"nowhere:1","data":1}'),
    "transport error mode": call(
        b"/api/publish", b'{"channel":1}', KEY + b"X-Centrifugo-Error-Mode: transport\r\n"
    ),
    "too large": call(b"/api/publish", b'{"channel":"log:1","data":"' + b"x" * 5000 + b'"}'),
    "coding": call(b"/api/publish", PUBLISH, KEY + b"Content-Encoding: br\r\n"),
    "close": call(b"/api/publish", PUBLISH, KEY + b"Connection: close\r\n"),
    "page": call(b"/api/publish", PUBLISH, KEY + b"Origin: https://other.example\r\n"),
    "proxy": call(b"/api/publish", PUBLISH, KEY + b"X-Forwarded-For: 10.0.0.1\r\n"),
}


async def answer_to(node: ServedNode, request: bytes) -> list[bytes]:
    """The lines of a response, and of another behind it, without what differs between nodes and with time."""
    last = b"GET /health/live HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    async with node.tcp() as (connection, _):
        await connection.send(request + last)
        answer = await connection.read_to_end()
    return sorted(re.sub(rb'(?i)\r\ndate: [^\r]*|"epoch":"\w*"|"offset":\d+', b"", answer).split(b"\r\n"))


async def test_both_ways_give_the_same_responses() -> None:
    async with AsyncExitStack() as stack:
        ways = [await stack.enter_async_context(served(kind)) for kind in (TocsinApp, OtherApp)]
        for name, request in REQUESTS.items():
            direct, asgi = [await answer_to(node, request) for node in ways]
            assert (name, direct) == (name, asgi)
            assert len(direct) > 5


@pytest.mark.parametrize("kind", [TocsinApp, OtherApp])
async def test_only_the_application_of_this_package_is_passed_over(
    kind: type[TocsinApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class of an embedding program may do anything with a request before Tocsin sees it."""
    opened: list[bytes] = []
    real = DirectApi.open

    def count(self: DirectApi, path: bytes, *rest: object) -> object:
        opened.append(path)
        return real(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(DirectApi, "open", count)
    async with served(kind) as node, node.tcp() as (connection, _):
        await connection.send(REQUESTS["publish"])
        assert await connection.response() == 200
    assert opened == ([b"/api/publish"] if kind is TocsinApp else [])


async def test_what_an_embedding_program_puts_around_all_middleware_is_not_passed_over() -> None:
    """Such as an instrumentation, which replaces the method that builds the middleware."""
    app = create_app(settings_of({}))
    build = app.build_middleware_stack
    seen: list[str] = []

    def build_around() -> ASGIApp:
        inner = build()

        async def note(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(scope.get("path", ""))
            await inner(scope, receive, send)

        return note

    app.build_middleware_stack = build_around  # type: ignore[method-assign]
    async with (
        serving(app, ServerOptions(port=0)) as server,
        ServedNode(app.state.node, server).tcp() as (connection, _),
    ):
        await connection.send(REQUESTS["publish"])
        assert await connection.response() == 200
    assert "/api/publish" in seen


async def test_a_head_without_a_valid_key_is_refused_before_its_body_arrives() -> None:
    async with served() as node, node.tcp() as (connection, _):
        head, _, body = REQUESTS["wrong key"].partition(b"\r\n\r\n")
        await connection.send(head + b"\r\n\r\n" + body[:3])
        assert await connection.response() == 401
        await connection.send(body[3:] + REQUESTS["publish"])
        assert await connection.response() == 200


async def test_a_body_may_arrive_behind_its_head() -> None:
    async with served() as node, node.tcp() as (connection, _):
        await send_in_parts(connection, REQUESTS["publish"])
        assert await connection.response() == 200


@pytest.mark.parametrize("name", ["publish", "wrong key"])
async def test_an_idle_connection_keeps_no_body(name: str) -> None:
    """It may be 64 KiB, of each connection that stays open between two calls."""
    async with served() as node, node.tcp() as (connection, _):
        await connection.send(REQUESTS[name])
        assert await connection.response() in (200, 401)
        (http,) = node.server.server_state.connections
        assert isinstance(http, HttpProtocol)
        assert not http.cycle.body


async def send_in_parts(connection: RawConnection, request: bytes) -> None:
    """Send a request byte by byte, each in a turn of the loop of its own."""
    for byte in request:
        await connection.send(bytes((byte,)))
        await asyncio.sleep(0)


async def test_requests_behind_one_another_are_answered_in_their_order() -> None:
    """Of both kinds, also where one waits."""
    async with served() as node, node.tcp() as (connection, _):
        gate = asyncio.Event()

        async def hold(_user: str, _params: object) -> int:
            await gate.wait()
            return 1

        node.node.operations.rpc_methods["hold"] = hold
        waits = call(b"/api/rpc", b'{"method":"hold"}')
        await connection.send(REQUESTS["publish"] + waits + REQUESTS["wrong key"] + REQUESTS["GET"])
        assert await connection.response() == 200
        gate.set()
        assert await connection.read_until_responses(3) == [200, 401, 405]


async def test_a_defect_is_a_500_that_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def fail(_api: Api, call: object, _body: bytes) -> ApiResponse:
        calls.append(call)
        raise RuntimeError("a bug")

    monkeypatch.setattr("tocsin_server.api.application.Api.respond", fail)
    async with served() as node, node.tcp() as (connection, _):
        await connection.send(REQUESTS["publish"] * 10)
        answer = await connection.read_to_end()
    assert len(calls) == 1, "a call whose response could not be sent is not made"
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert answer.endswith(b"\r\n\r\nInternal Server Error")
