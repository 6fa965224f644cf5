"""The clients over real sockets, against servers that flood, drip, redirect and never end."""

import asyncio
import gzip
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from tests.client.hostile_server import Script, answers, hostile_server, repeats, text_frame
from tests.support.timing import SOON, TICK
from tocsin import (
    AsyncPublisher,
    BadProtocol,
    CallError,
    Client,
    ConnectionLost,
    EventStream,
    Publisher,
    ServerUnreachable,
    State,
    StateChanged,
    TimedOut,
    backoff,
)
from tocsin.transports import http, sse, websocket

SSE_HEAD = "HTTP/1.1 200 OK\nContent-Type: text/event-stream\n\n"
JSON_HEAD = "HTTP/1.1 200 OK\nContent-Type: application/json\n\n"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(websocket, "CLOSE_SECONDS", TICK)


async def next_event(url: str) -> Any:
    async with EventStream(url, "news") as stream, asyncio.timeout(SOON):
        return await anext(stream)


# --- event streams


@pytest.mark.parametrize("piece", [b"x" * 4096, b"data: " + b"x" * 4096 + b"\n", b"event: a\n" * 500])
async def test_an_event_that_never_ends_is_an_error(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line without its end, and lines of an event without the blank line. The limit is 64 MiB."""
    monkeypatch.setattr(sse, "EVENT_CHARACTERS", 100_000)
    async with hostile_server(repeats(SSE_HEAD, piece)) as server:
        with pytest.raises(BadProtocol, match="sent an event that does not end"):
            await next_event(server.url)
        assert len(server.requests) == 1


async def test_comments_without_end_are_no_event_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may be quiet for months."""
    monkeypatch.setattr(sse, "EVENT_CHARACTERS", 1000)
    publication = json.dumps({"channel": "news", "pub": {"data": 1, "offset": 1}})
    comments = [b": ping\n\n"] * 500
    event = f"id: 0@E\n\nid: 1@E\ndata: {publication}\n\n".encode()
    async with hostile_server(answers(SSE_HEAD.rstrip(), *comments, event)) as server:
        assert (await next_event(server.url)).data == 1


@pytest.mark.parametrize("retry", ["0", "-5", "9" * 400, "nan", "1e3", "1_0"])
async def test_a_retry_that_no_server_should_send_is_bounded(
    retry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first wait is half a second at least, the later ones are those of the backoff; 300 s at most."""
    waits: list[float] = []

    async def record(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.5)
    monkeypatch.setattr("tocsin.transports.sse.random.random", lambda: 0.5)
    monkeypatch.setattr("tocsin.transports.sse.asyncio.sleep", record)
    end = 'event: disconnect\ndata: {"code":3001,"reason":"r"}\n\n'

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{SSE_HEAD}retry: {retry}\nid: 1@E\n\n{end}".replace("\n", "\r\n").encode())
        await writer.drain()

    async with hostile_server(script) as server, EventStream(server.url, "news") as stream:
        async with asyncio.timeout(SOON):
            async for _ in stream.events():
                if len(waits) == 8:
                    break
    assert all(0.5 <= wait <= 450 for wait in waits)
    assert min(waits[-2:]) > 10


async def test_an_error_whose_body_never_ends_is_read_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    script = repeats("HTTP/1.1 403 Forbidden\nContent-Type: text/plain\n\n", b"no entry " * 1000)
    async with hostile_server(script) as server:
        with pytest.raises(CallError, match="HTTP 403"):
            await next_event(server.url)


async def test_a_response_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head of which each byte arrives just in time would otherwise keep the stream connecting for ever."""
    monkeypatch.setattr(sse, "SILENCE_SECONDS", 3 * TICK)
    reasons: asyncio.Queue[str] = asyncio.Queue()
    async with hostile_server(repeats("HTTP/1.1 200 OK\nX-Slow: ", b"x", TICK / 2)) as server:
        stream = EventStream(server.url, "news", on_state=lambda change: reasons.put_nowait(change.reason))
        reading = asyncio.create_task(anext(stream))
        async with asyncio.timeout(SOON):
            assert await reasons.get() == "connect called"
            assert (await reasons.get()).startswith("no response within")
        await server.requested(2)
        reading.cancel()
        await asyncio.wait([reading])
        await stream.close()


async def test_a_compressed_stream_is_an_error() -> None:
    """A kilobyte could become a megabyte. The request says that it accepts no compression."""
    head = "HTTP/1.1 200 OK\nContent-Type: text/event-stream\nContent-Encoding: gzip"
    async with hostile_server(answers(head, gzip.compress(b"x" * 10_000))) as server:
        with pytest.raises(BadProtocol, match="compressed"):
            await next_event(server.url)
        assert "accept-encoding: identity" in server.requests[0].lower()


# --- WebSockets


def connects(*replies: Any, then: Script | None = None) -> Script:
    """A script that accepts the connect command, and sends replies."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        accepted = {"id": 1, "connect": {"client": "c", "ping": 25, "pong": True}}
        writer.write(text_frame("\n".join(json.dumps(reply) for reply in (accepted, *replies))))
        if then is not None:
            await then(reader, writer)
        await asyncio.Event().wait()

    return script


async def test_redirects_are_not_followed_and_the_error_names_the_address() -> None:
    """Values of its query, which may be a token, are left out."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await writer.drain()

    async with hostile_server(script) as other:
        location = f"{other.url.replace('http', 'ws')}/connection/websocket?token=secret"

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            response = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
            writer.write(response.encode())
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            async with Client(url) as client, asyncio.timeout(SOON):
                with pytest.raises(BadProtocol, match="HTTP 302, a redirect to ws://") as caught:
                    await client.ready()
        assert "secret" not in str(caught.value)
        assert not other.requests


async def test_a_server_that_sends_pings_and_reads_nothing_loses_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each ping of WebSocket is answered, so that the unread answers would fill the memory."""
    monkeypatch.setattr(websocket, "UNSENT_BYTES", 100_000)
    pings = (bytes((0x89, 125)) + b"p" * 125) * 1000
    async with hostile_server(connects(then=repeats("", pings))) as server:
        states: asyncio.Queue[StateChanged] = asyncio.Queue()
        async with Client(server.url, on_state=states.put_nowait) as client, asyncio.timeout(3 * SOON):
            await client.ready()
            while (await states.get()).reason != "connected":
                pass
            assert (await states.get()).state is State.CONNECTING


async def test_a_caller_is_told_when_the_server_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands in flight fail as when a connection breaks."""
    monkeypatch.setattr(websocket, "UNSENT_BYTES", 100_000)
    async with hostile_server(connects()) as server:
        states: list[str] = []
        async with Client(server.url, on_state=lambda change: states.append(change.reason)) as client:
            async with asyncio.timeout(SOON):
                await client.ready()
                with pytest.raises(ConnectionLost):
                    await client.publish("news", "x" * 200_000)
        assert any("does not read" in reason for reason in states)


async def test_a_message_of_many_publications_is_not_kept_beyond_the_inbox() -> None:
    """The channel is unsubscribed within the message; the rest of it is recovered later."""
    publications = [{"push": {"channel": "news", "pub": {"data": n, "offset": n}}} for n in range(1, 30_001)]

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reply = {"id": 2, "subscribe": {"recoverable": True, "positioned": True, "epoch": "E"}}
        writer.write(text_frame("\n".join(json.dumps(one) for one in (reply, *publications))))

    async with (
        hostile_server(connects(then=flood)) as server,
        Client(server.url, inbox_bytes=100_000) as client,
        asyncio.timeout(SOON),
    ):
        subscription = client.subscribe("news")
        assert (await anext(subscription)).data == 1
        assert len(subscription._inbox._items) < 3000


async def test_closing_does_not_wait_for_a_server_that_reads_nothing() -> None:
    async with hostile_server(connects(then=repeats("", text_frame("{}")))) as server:
        client = await Client(server.url).__aenter__()
        async with asyncio.timeout(SOON):
            await client.ready()
            publishing = asyncio.create_task(client.publish("news", "x" * 20_000_000))
            await asyncio.sleep(0)
            await client.close()
            with pytest.raises(ConnectionLost):
                await publishing


# --- publishers

Send = Callable[[str, float], Coroutine[Any, Any, None]]


async def plainly(url: str, timeout_seconds: float) -> None:
    with Publisher(url, "key", timeout_seconds=timeout_seconds) as publisher:
        await asyncio.to_thread(publisher.publish, "news", 1)


async def asynchronously(url: str, timeout_seconds: float) -> None:
    async with AsyncPublisher(url, "key", timeout_seconds=timeout_seconds) as publisher:
        await publisher.publish("news", 1)


both = pytest.mark.parametrize("send", [plainly, asynchronously])


@both
async def test_a_response_that_never_ends_is_an_error(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "RESPONSE_BYTES", 100_000)
    async with hostile_server(repeats(JSON_HEAD, b" " * 4096)) as server:
        with pytest.raises(BadProtocol, match="more than 100,000 bytes"):
            await send(server.url, SOON)


@both
async def test_a_response_that_drips_ends_at_the_time_limit(send: Send) -> None:
    async with hostile_server(repeats(JSON_HEAD, b" ", TICK / 2)) as server:
        with pytest.raises(TimedOut, match="may or may not have been done"):
            await send(server.url, 3 * TICK)


@both
async def test_a_compressed_response_is_an_error(send: Send) -> None:
    head = "HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Encoding: gzip"
    async with hostile_server(answers(head, gzip.compress(b" " * 1_000_000))) as server:
        with pytest.raises(BadProtocol, match="compressed"):
            await send(server.url, SOON)


async def recorded_attempts(
    response: str, send: Send, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], Exception]:
    """The waits between the attempts of one call, which all get this response, and its error."""
    waits: list[float] = []

    async def record(_: AsyncPublisher, seconds: float) -> None:
        waits.append(seconds)

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response.replace("\n", "\r\n").encode())
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(TICK)

    monkeypatch.setattr(Publisher, "_pause", lambda _, seconds: waits.append(seconds))
    monkeypatch.setattr(AsyncPublisher, "_pause", record)
    async with hostile_server(script) as server:
        try:
            await send(server.url, 8.0)
        except (CallError, ServerUnreachable) as error:
            return waits, error
    raise AssertionError("no error")


@both
async def test_a_publisher_waits_as_long_as_retry_after_says_within_its_time_limit(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    unavailable = (
        "HTTP/1.1 503 Service Unavailable\nRetry-After: {}\nContent-Length: 0\nConnection: close\n\n"
    )
    waits, error = await recorded_attempts(unavailable.format("3"), send, monkeypatch)
    assert [round(wait) for wait in waits] == [3, 3]
    assert "HTTP 503" in str(error)
    waits, _ = await recorded_attempts(unavailable.format("9" * 400), send, monkeypatch)
    assert [round(wait) for wait in waits] == [8, 8]


@both
async def test_a_call_that_is_refused_for_too_many_requests_is_sent_three_times(
    send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = '{"error":{"code":111,"message":"too many requests"}}'
    head = f"HTTP/1.1 200 OK\nContent-Length: {len(body)}\nConnection: close\n\n"
    waits, error = await recorded_attempts(head + body, send, monkeypatch)
    assert len(waits) == 2
    assert isinstance(error, CallError)
    assert error.code == 111


async def test_the_start_of_a_compressed_error_is_not_decoded() -> None:
    """It would need the whole body."""
    stream = httpx.ByteStream(b"\x1f\x8b")
    request = httpx.Request("GET", "http://a")
    response = httpx.Response(503, headers={"Content-Encoding": "gzip"}, stream=stream, request=request)
    assert len((await http.read_error(response)).text) == 2
