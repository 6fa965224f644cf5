"""The WebSocket handshake that fails: what is final, and the sentence that says what to do."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import serve

from tests.client.scripted_server import ScriptedServer
from tests.server.engine.redis.certificates import write_certificate
from tests.support.tcp import forward, tcp_connection, tcp_server
from tests.support.timing import SOON
from tocsin import BadProtocol, Client, PermissionDenied, State, StateChanged, Unauthorized
from tocsin.transports.websocket import describe_status

Refuse = Callable[[HTTPStatus, str], AbstractAsyncContextManager[str]]


@pytest.fixture
def refusing() -> Refuse:
    """A server that answers every handshake with a status and a body."""

    @asynccontextmanager
    async def run(status: HTTPStatus, body: str) -> AsyncIterator[str]:
        async def ignore(_: Any) -> None: ...

        def refuse(connection: Any, _: Any) -> Any:
            return connection.respond(status, body)

        async with serve(ignore, "127.0.0.1", 0, process_request=refuse) as server:
            yield f"http://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

    return run


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (
            HTTPStatus.BAD_REQUEST,
            BadProtocol,
            "HTTP 400, 'the reason'; if the address is right, a proxy in between",
        ),
        (HTTPStatus.UPGRADE_REQUIRED, BadProtocol, "does not pass the Upgrade header"),
        (HTTPStatus.NOT_FOUND, BadProtocol, "HTTP 404, 'the reason'"),
        (HTTPStatus.UNAUTHORIZED, Unauthorized, "HTTP 401, 'the reason'"),
        (HTTPStatus.FORBIDDEN, PermissionDenied, "HTTP 403, 'the reason'"),
    ],
)
async def test_a_refused_handshake_is_raised_with_the_reason_of_the_server(
    refusing: Refuse, status: HTTPStatus, error: type[Exception], words: str
) -> None:
    async with refusing(status, "the\nreason\n") as url, Client(url) as client:
        with pytest.raises(error, match=words):
            await client.ready()


@pytest.mark.parametrize(
    ("status", "words"),
    [(HTTPStatus.OK, "Upgrade"), (HTTPStatus.SERVICE_UNAVAILABLE, "HTTP 503, 'the reason'")],
)
async def test_a_handshake_that_may_succeed_later_is_repeated_with_the_reason_in_the_state(
    refusing: Refuse, scripted: ScriptedServer, status: HTTPStatus, words: str
) -> None:
    """`scripted` shortens the backoff."""
    reasons: asyncio.Queue[str] = asyncio.Queue()

    def on_state(event: StateChanged) -> None:
        if event.state is State.CONNECTING and event.reason != "connect called":
            reasons.put_nowait(event.reason)

    async with refusing(status, "the reason") as url, Client(url, on_state=on_state), asyncio.timeout(SOON):
        for _ in range(2):
            assert words in await reasons.get()


@pytest.mark.parametrize("is_proxied", [False, True])
async def test_an_untrusted_certificate_is_the_reason_of_repeated_attempts(
    scripted: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_proxied: bool
) -> None:
    """The server may get another certificate. It is no fault of a proxy in between."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*write_certificate(tmp_path))
    reasons: asyncio.Queue[str] = asyncio.Queue()

    async def ignore(_: Any) -> None: ...

    def on_state(event: StateChanged) -> None:
        if event.state is State.CONNECTING and event.reason != "connect called":
            reasons.put_nowait(event.reason)

    async with serve(ignore, "127.0.0.1", 0, ssl=context) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with tcp_server(partial(tunnel, port)) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy}" if is_proxied else "")
            async with Client(f"https://127.0.0.1:{port}", on_state=on_state), asyncio.timeout(SOON):
                for _ in range(2):
                    reason = await reasons.get()
                    assert "cannot connect: [SSL: CERTIFICATE_VERIFY_FAILED]" in reason
                    assert ("through the proxy" in reason) is is_proxied


async def tunnel(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What a proxy does for CONNECT."""
    await reader.readuntil(b"\r\n\r\n")
    async with tcp_connection(port) as (upstream_reader, upstream_writer):
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.wait(
            [
                asyncio.ensure_future(forward(reader, upstream_writer)),
                asyncio.ensure_future(forward(upstream_reader, writer)),
            ]
        )


def test_the_body_of_a_response_is_cut_and_a_page_is_left_out() -> None:
    assert len(describe_status(502, "x" * 10_000)) < 300
    assert describe_status(502, "\n<html>…") == "cannot connect: HTTP 502"


async def test_the_user_of_an_address_is_sent_decoded() -> None:
    """As a proxy with basic authentication needs it."""
    received: list[str] = []

    async def ignore(_: Any) -> None: ...

    def note(connection: Any, request: Any) -> Any:
        received.append(request.headers["Authorization"])
        return connection.respond(HTTPStatus.NOT_FOUND, "")

    async with serve(ignore, "127.0.0.1", 0, process_request=note) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with Client(f"http://ada:p%23%3F%5Bw@127.0.0.1:{port}") as client:
            with pytest.raises(BadProtocol) as caught:
                await client.ready()
    assert received == ["Basic " + base64.b64encode(b"ada:p#?[w").decode()]
    assert "%23" not in str(caught.value)


async def test_options_of_tls_do_not_matter_without_tls(scripted: ScriptedServer) -> None:
    async with Client(scripted.url, ssl=ssl.create_default_context()) as client, asyncio.timeout(SOON):
        await client.ready()
