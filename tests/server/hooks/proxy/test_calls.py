"""Calls of a real back end: what it is sent, what counts as an answer, and when it is called again."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.server.hooks.proxy.events import CLIENT, client_request, events_of, proxies_to
from tests.server.served_node import until
from tests.support.back_end import BackEnd, SeenRequest, admits, back_end_running, http
from tests.support.tcp import refusing_port
from tocsin_server.errors import BAD_REQUEST, INTERNAL_ERROR, Refusal
from tocsin_server.hooks.answers import Answer, Connected, Published, Refreshed, RpcAnswer, Subscribed
from tocsin_server.hooks.events import HookKind
from tocsin_server.hooks.proxy.client import Progress, failure_of
from tocsin_server.hooks.proxy.proxy import GRACE_SECONDS, REPEATABLE
from tocsin_server.protocol.payloads import Binary

SECRET = "a secret of 32 random bytes, once"
REFRESHES = (HookKind.REFRESH, HookKind.SUB_REFRESH)
RESULTS: dict[HookKind, Answer] = {
    HookKind.CONNECT: Connected(user="56"),
    HookKind.REFRESH: Refreshed(),
    HookKind.SUBSCRIBE: Subscribed(),
    HookKind.SUB_REFRESH: Refreshed(),
    HookKind.PUBLISH: Published(),
    HookKind.RPC: RpcAnswer(),
}


@pytest.fixture
async def back_end() -> AsyncIterator[BackEnd]:
    async with back_end_running() as back_end:
        yield back_end


def grants_nothing(kind: HookKind, answer: Answer) -> bool:
    """Whether this is the answer where there is a fault."""
    if kind not in REFRESHES:
        return answer == INTERNAL_ERROR
    assert isinstance(answer, Refreshed)
    return not answer.is_expired and 0 < answer.expire_at - time.time() <= GRACE_SECONDS


async def test_each_event_is_posted_to_its_own_address_on_a_kept_connection(back_end: BackEnd) -> None:
    async with proxies_to(back_end.url) as proxies:
        for kind in (*HookKind, *HookKind):
            assert await proxies.ask(kind) == RESULTS[kind]
            assert back_end.requests[-1].path == f"/centrifugo/{kind.value}"
            assert back_end.requests[-1].json["client"] == CLIENT
        assert back_end.connections == len(HookKind)
        assert proxies.metric("tocsin_proxy_connections") == len(HookKind)
        assert proxies.outcomes == {"answered": 2 * len(HookKind)}


async def test_named_headers_are_forwarded_and_no_others(back_end: BackEnd) -> None:
    options = {
        "http_headers": ["Cookie", "Authorization", "X-Forwarded-For"],
        "static_headers": {"Authorization": "Bearer of the node", "X-Custom": "custom value"},
    }
    request = client_request(
        cookie="session=1; theme=ü".encode().decode("latin-1"),
        authorization="Bearer of the client",
        user_agent="a browser",
        x_secret="1",
    )
    async with proxies_to(back_end.url, options) as proxies:
        await proxies.ask(HookKind.CONNECT, events_of(request=request)[HookKind.CONNECT])
    headers = back_end.requests[0].headers
    assert headers.pop("host") == f"127.0.0.1:{back_end.port}"
    assert headers.pop("user-agent").startswith("tocsin/")
    assert headers == {
        "cookie": "session=1; theme=ü".encode().decode("latin-1"),
        "authorization": "Bearer of the node",
        "x-custom": "custom value",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "content-length": str(len(back_end.requests[0].body)),
    }


async def test_with_a_secret_each_request_is_signed(back_end: BackEnd) -> None:
    async with proxies_to(back_end.url, {"secret": SECRET}) as proxies:
        await proxies.ask(HookKind.RPC)
    request = back_end.requests[0]
    fields = dict(part.split("=") for part in request.headers["x-tocsin-signature"].split(","))
    signed = f"{fields['t']}.".encode() + request.body
    assert fields["v1"] == hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert abs(time.time() - int(fields["t"])) < 60


async def test_data_that_the_request_cannot_hold_is_refused_without_a_call(back_end: BackEnd) -> None:
    event = events_of(data=Binary(b"\xff"))[HookKind.PUBLISH]
    async with proxies_to(back_end.url) as proxies:
        answer = await proxies.ask(HookKind.PUBLISH, event)
        assert isinstance(answer, Refusal)
        assert answer.code == BAD_REQUEST.code
    assert not back_end.requests
    async with proxies_to(back_end.url, {"binary_encoding": True}) as proxies:
        assert await proxies.ask(HookKind.PUBLISH, event) == Published()
    assert back_end.requests[0].json["b64data"] == "/w=="


COMPRESSED = http(b"\x1f\x8b", "200 OK", "Content-Encoding: gzip")
FAULTS = [
    (http({}, "500 Internal Server Error"), "status", "it answered with status 500"),
    (http({}, "302 Found", "Location: /elsewhere"), "status", "it answered with status 302"),
    (http(b"<html>"), "malformed", "its answer is malformed: JSON is malformed"),
    (http(b" " * 70_000), "malformed", "its answer has more than 65536 bytes"),
    (COMPRESSED, "malformed", "its answer is compressed, which was not requested"),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "malformed", "its answer is no HTTP"),
    (http({"result": {"user": 5}}), "malformed", "at `$.result.user`"),
]


@pytest.mark.parametrize(("response", "outcome", "reason"), FAULTS)
async def test_what_is_no_answer_grants_nothing_and_is_logged(
    back_end: BackEnd, response: bytes, outcome: str, reason: str
) -> None:
    back_end.answer = lambda _request: response
    async with proxies_to(back_end.url, {"answer_limit_bytes": 65_536}) as proxies:
        with capture_logs() as lines:
            assert grants_nothing(HookKind.CONNECT, await proxies.ask(HookKind.CONNECT))
        assert proxies.outcomes == {outcome: 1}
    assert len(back_end.requests) == 1
    (line,) = (line for line in lines if line["event"] == "proxy_call_failed")
    assert (line["proxy"], line["kind"], line["client"]) == ("back", "connect", CLIENT)
    assert reason in line["error"]


@pytest.mark.parametrize("kind", HookKind)
async def test_every_kind_of_event_fails_closed(back_end: BackEnd, kind: HookKind) -> None:
    """A refresh is no grant: what the client has goes on for a minute, and the back end is asked again."""
    back_end.answer = lambda _request: http({}, "500 Internal Server Error")
    async with proxies_to(back_end.url) as proxies:
        assert grants_nothing(kind, await proxies.ask(kind))


async def test_an_answer_without_a_length_and_one_in_chunks_are_read(back_end: BackEnd) -> None:
    start = b"HTTP/1.1 200 OK\r\n"
    chunked = b'Transfer-Encoding: chunked\r\n\r\n8\r\n{"result\r\n6\r\n":{} }\r\n0\r\n\r\n'
    back_end.answer = lambda _request: start + chunked
    async with proxies_to(back_end.url) as proxies:
        assert await proxies.ask(HookKind.CONNECT) == Connected()


async def test_a_cookie_that_the_back_end_sets_is_not_sent_for_another_client(back_end: BackEnd) -> None:
    back_end.answer = lambda _request: http({"result": {}}, "200 OK", "Set-Cookie: session=other; Path=/")
    async with proxies_to(back_end.url) as proxies:
        await proxies.ask(HookKind.CONNECT)
        await proxies.ask(HookKind.CONNECT)
    assert "cookie" not in back_end.requests[1].headers


async def test_a_proxy_of_the_environment_is_not_used(
    back_end: BackEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with proxies_to(back_end.url) as proxies:
        assert await proxies.ask(HookKind.CONNECT) == Connected(user="56")


async def test_a_back_end_that_does_not_answer_in_time_is_a_fault(back_end: BackEnd) -> None:
    """The call ends, and its connection with it."""
    never = asyncio.Event()

    async def hang(_request: SeenRequest) -> bytes:
        await never.wait()
        return b""

    back_end.answer = hang
    async with proxies_to(back_end.url, {"timeout": "200ms"}) as proxies:
        assert grants_nothing(HookKind.RPC, await proxies.ask(HookKind.RPC))
        assert proxies.outcomes == {"timeout": 1}
        await until(lambda: proxies.metric("tocsin_proxy_connections") == 0)
    never.set()


async def test_a_call_waits_for_a_connection_no_longer_than_its_timeout(back_end: BackEnd) -> None:
    gate = asyncio.Event()

    async def wait(_request: SeenRequest) -> bytes:
        await gate.wait()
        return admits(_request)

    back_end.answer = wait
    async with proxies_to(back_end.url, {"connections": 1, "timeout": "500ms"}) as proxies:
        calls = [proxies.ask(HookKind.RPC) for _ in range(2)]
        assert await asyncio.gather(*calls) == [INTERNAL_ERROR] * 2
        assert back_end.connections <= 1
        assert proxies.outcomes == {"timeout": 2}
        gate.set()
        while await proxies.ask(HookKind.RPC) == INTERNAL_ERROR:
            pass  # a slow machine needs more than the timeout


async def test_calls_of_one_kind_that_wait_hold_up_no_others(back_end: BackEnd) -> None:
    gate = asyncio.Event()

    async def wait(request: SeenRequest) -> bytes:
        if request.path.endswith("/rpc"):
            await gate.wait()
        return admits(request)

    back_end.answer = wait
    async with proxies_to(back_end.url, {"connections": 1}) as proxies:
        calls = [asyncio.create_task(proxies.ask(HookKind.RPC)) for _ in range(3)]
        assert await proxies.ask(HookKind.CONNECT) == Connected(user="56")
        gate.set()
        assert await asyncio.gather(*calls) == [RpcAnswer()] * 3


async def test_a_call_that_is_cancelled_leaves_no_connection_and_no_fault(back_end: BackEnd) -> None:
    seen = asyncio.Event()

    async def hang(_request: SeenRequest) -> bytes:
        seen.set()
        await asyncio.Event().wait()
        return b""

    back_end.answer = hang
    async with proxies_to(back_end.url) as proxies:
        call = asyncio.create_task(proxies.ask(HookKind.CONNECT))
        await seen.wait()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert proxies.outcomes == {}
        back_end.answer = admits
        assert await proxies.ask(HookKind.CONNECT) == Connected(user="56")


# ------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("kind", HookKind)
async def test_a_call_without_an_answer_is_made_again_where_that_changes_nothing(
    back_end: BackEnd, kind: HookKind
) -> None:
    """The back end has read the request. So a publish or an RPC may have been carried out."""
    answers: Iterator[bytes | None] = iter([None, http({"result": {"user": "56"}})])
    back_end.answer = lambda _request: next(answers)
    async with proxies_to(back_end.url) as proxies:
        answer = await proxies.ask(kind)
        if kind in REPEATABLE:
            assert answer == RESULTS[kind]
            assert proxies.metric("tocsin_proxy_retries_total") == 1
        else:
            assert answer == INTERNAL_ERROR
            assert proxies.outcomes == {"closed": 1}
    assert len(back_end.requests) == (2 if kind in REPEATABLE else 1)


async def test_retries_are_counted(back_end: BackEnd) -> None:
    back_end.answer = lambda _request: None
    async with proxies_to(back_end.url, {"retries": 3}) as proxies:
        assert await proxies.ask(HookKind.CONNECT) == INTERNAL_ERROR
        assert proxies.metric("tocsin_proxy_retries_total") == 3
    assert len(back_end.requests) == 4
    async with proxies_to(back_end.url, {"retries": 0}) as proxies:
        assert await proxies.ask(HookKind.CONNECT) == INTERNAL_ERROR
    assert len(back_end.requests) == 5


@pytest.mark.parametrize("head", [b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"])
async def test_a_call_whose_answer_began_is_not_made_again(head: bytes) -> None:
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        await reader.readuntil(b"}")
        writer.write(head)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, proxies_to(f"http://127.0.0.1:{port}/") as proxies:
        assert await proxies.ask(HookKind.CONNECT) == INTERNAL_ERROR
        assert proxies.outcomes == {"closed": 1}
    assert count == 1


async def test_a_connection_that_is_refused_is_tried_again_for_every_kind() -> None:
    """The request was not sent."""
    with refusing_port() as port:
        async with proxies_to(f"http://127.0.0.1:{port}/") as proxies:
            with capture_logs() as lines:
                assert await proxies.ask(HookKind.PUBLISH) == INTERNAL_ERROR
            assert proxies.outcomes == {"connect": 1}
            assert proxies.metric("tocsin_proxy_retries_total") == 1
    assert lines[-1]["error"] == "it cannot be connected to (Connection refused)"


class BlockingBackEnd:
    """A back end that closes a kept connection at the very moment at which the node uses it again.

    It runs in threads, so that it acts while the event loop does not.
    """

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/"
        self.requests = 0

    async def answer_one(self) -> socket.socket:
        """Accept a connection, and answer one request on it."""
        connection = await asyncio.to_thread(lambda: self._server.accept()[0])
        await asyncio.to_thread(self.read_one, connection)
        connection.sendall(http({"result": {}}))
        return connection

    def read_one(self, connection: socket.socket) -> None:
        read = b""
        while not read.endswith(b"}"):
            if not (received := connection.recv(65_536)):
                raise ConnectionError("the node closed the connection")
            read += received
        self.requests += 1

    def close(self) -> None:
        """Accept no further connections. A thread that waits for one ends."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.mark.parametrize("kind", HookKind)
async def test_a_call_on_a_kept_connection_that_was_closed_unread_is_made_again(kind: HookKind) -> None:
    """The kernel of the back end has acknowledged no byte of the request. So a publish is repeated, too."""
    back_end = BlockingBackEnd()
    with contextlib.closing(back_end):
        async with proxies_to(back_end.url, {"retries": 0}) as proxies:
            answering = asyncio.create_task(back_end.answer_one())
            await proxies.ask(kind)
            kept = await answering
            answering = asyncio.create_task(back_end.answer_one())
            await asyncio.sleep(0)
            kept.close()  # and before the event loop can notice, the next call begins
            assert await proxies.ask(kind) == RESULTS_WITHOUT_USER[kind]
            (await answering).close()
            assert proxies.metric("tocsin_proxy_retries_total") == 1
            assert proxies.outcomes == {"answered": 2}


RESULTS_WITHOUT_USER = {**RESULTS, HookKind.CONNECT: Connected()}


@pytest.mark.parametrize("kind", [HookKind.PUBLISH, HookKind.RPC])
async def test_a_call_on_a_kept_connection_that_was_closed_after_reading_is_not_made_again(
    kind: HookKind,
) -> None:
    back_end = BlockingBackEnd()
    with contextlib.closing(back_end):
        async with proxies_to(back_end.url) as proxies:
            answering = asyncio.create_task(back_end.answer_one())
            await proxies.ask(kind)
            kept = await answering
            back_end.close()
            reading = asyncio.create_task(asyncio.to_thread(back_end.read_one, kept))
            reading.add_done_callback(lambda _reading: kept.close())
            assert await proxies.ask(kind) == INTERNAL_ERROR
            await reading
            assert back_end.requests == 2
            assert proxies.metric("tocsin_proxy_retries_total") == 0


async def test_a_host_without_an_address_has_a_sentence() -> None:
    key: Any = aiohttp.client_reqrep.ConnectionKey("app.example", 80, False, True, None, None, None, None)
    error = socket.gaierror(-2, "Name or service not known")
    failure = failure_of(aiohttp.ClientConnectorDNSError(key, error))
    assert str(failure) == "the name app.example cannot be resolved"
    assert failure.progress is Progress.NOT_RECEIVED
