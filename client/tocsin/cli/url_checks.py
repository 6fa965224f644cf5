"""Checks of a running system through its public address: as a client, through every proxy in between."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from tocsin.protocol.codec import PONG, decode_replies
from tocsin.protocol.messages import WireError
from tocsin.session.session import LONGEST_PING_SECONDS
from tocsin.transports.address import http_url, redact, websocket_url
from tocsin.transports.http import HttpClient, HttpTarget
from tocsin.transports.sse import EVENTS_PATH, add_channels
from tocsin.transports.websocket import UPGRADE_ADVICE

from .findings import Finding, error, ok, warning
from .output import printable

OPEN_SECONDS = 10.0
FIRST_EVENT_SECONDS = 5.0
CLOCK_SECONDS = 5.0  # the server's default of client.token_leeway
CERTIFICATE_DAYS = 14
FOREIGN_ORIGIN = "https://tocsin-doctor.invalid"  # of no page (RFC 2606 §2)
BUFFERING_FIX = (
    "switch buffering and compression off for /events: proxy_buffering off in nginx, and no gzip_types for "
    "text/event-stream"
)
IDLE_FIX = (
    "let the proxy keep idle connections for more than twice client.ping_interval "
    "(proxy_read_timeout in nginx)"
)


@dataclass(frozen=True, slots=True)
class Target:
    """The system to check. ``token`` and ``channel`` are for the connections that are opened."""

    url: str
    token: str
    channel: str
    hold_seconds: float

    @property
    def is_public(self) -> bool:
        """Whether the address is not one of this machine or of a private network."""
        host = urlsplit(http_url(self.url, "")).hostname or ""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host != "localhost" and "." in host
        return address.is_global

    def http(self) -> HttpClient:
        """Make an HTTP client."""
        timeout = httpx.Timeout(OPEN_SECONDS, read=OPEN_SECONDS)
        return HttpTarget(http_url(self.url, EVENTS_PATH), timeout=timeout).new_client(HttpClient)


async def url_findings(target: Target) -> AsyncIterator[Finding]:
    """Check one address. The connections are held for ``hold_seconds``, all at the same time."""
    async with target.http() as http:
        try:
            response = await http.get(http_url(target.url, "/health/ready"))
        except (httpx.RequestError, httpx.InvalidURL) as problem:
            reason = str(problem) or type(problem).__name__
            yield error("address", f"{redact(target.url)} does not answer: {reason}", "see the reason")
            return
        yield ok("address", f"{redact(target.url)} answers with HTTP {response.status_code}")
        yield _clock(response)
        for finding in (_encryption(target), await _certificate(target)):
            if finding is not None:
                yield finding
        yield await _metrics(target, http)
        yield await _api(target, http)
    yield await _foreign_origin(target)
    ping_seconds: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    for finding in await asyncio.gather(
        _websocket(target, ping_seconds), _event_stream(target, ping_seconds)
    ):
        yield finding


def _clock(response: httpx.Response) -> Finding:
    """The clock of the server, or of the proxy before it, by its header Date (a whole second)."""
    with suppress(ValueError, KeyError, TypeError):
        ahead = parsedate_to_datetime(response.headers["Date"]).timestamp() + 0.5 - time.time()
        if abs(ahead) > CLOCK_SECONDS:
            return warning(
                "clock of the server",
                f"it differs from that of this machine by {ahead:+.0f} s",
                "synchronize the clocks of both machines (NTP)",
            )
        return ok("clock of the server", "it agrees with that of this machine")
    return warning("clock of the server", "the response has no Date", "compare the clocks yourself")


def _encryption(target: Target) -> Finding | None:
    if http_url(target.url, "").startswith("https:"):
        return None
    if target.is_public:
        return error(
            "encryption", "tokens and payloads travel unencrypted", "serve https, at a proxy or here"
        )
    return ok("encryption", "there is none, within a private network")


async def _certificate(target: Target) -> Finding | None:
    parts = urlsplit(http_url(target.url, ""))
    if parts.scheme != "https":
        return None
    context, host = httpx.create_ssl_context(), parts.hostname or ""
    try:
        async with asyncio.timeout(OPEN_SECONDS):
            _, writer = await asyncio.open_connection(host, parts.port or 443, ssl=context)
    except (OSError, TimeoutError) as problem:
        return error("certificate", f"it cannot be checked: {problem}", "see the reason")
    certificate = writer.get_extra_info("peercert")
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) / 86_400
    if days < CERTIFICATE_DAYS:
        return warning("certificate", f"it expires in {days:.0f} days", "renew it")
    return ok("certificate", f"it is valid for {days:.0f} days")


async def _metrics(target: Target, http: HttpClient) -> Finding:
    try:
        response = await http.get(http_url(target.url, "/metrics"))
    except httpx.RequestError:
        return ok("metrics", "they cannot be read at this address")
    if response.status_code != 200:
        return ok("metrics", f"they cannot be read at this address (HTTP {response.status_code})")
    fix = "set admin.host to an address of a private network, or deny /metrics at the proxy"
    if target.is_public:
        return error("metrics", "they can be read at this public address without a key", fix)
    text = "they can be read from this machine without a key"
    return warning("metrics", text, f"try it from outside the network; if they can be read there, {fix}")


async def _api(target: Target, http: HttpClient) -> Finding:
    try:
        response = await http.post(http_url(target.url, "/api") + "/info", content=b"{}")
    except httpx.RequestError:
        return ok("API", "it cannot be called at this address")
    if response.status_code == 200 and "result" in response.text:
        return error("API", "it answers without a key", "remove api.insecure, and set api.keys")
    if response.status_code in (404, 403):
        return ok("API", f"it cannot be called at this address (HTTP {response.status_code})")
    text = f"it can be called at this address, with a key (HTTP {response.status_code})"
    if not target.is_public:
        return ok("API", text)
    return warning(
        "API", text, "set admin.host to an address of a private network, or deny /api at the proxy"
    )


async def _open(target: Target, origin: str | None = None) -> ClientConnection:
    return await connect(
        websocket_url(target.url),
        origin=origin,  # type: ignore[arg-type] # a NewType of str
        compression=None,
        ping_interval=None,
        open_timeout=OPEN_SECONDS,
        close_timeout=1.0,
        proxy=None,
    )


async def _foreign_origin(target: Target) -> Finding:
    try:
        opened = await _open(target, FOREIGN_ORIGIN)
    except (OSError, InvalidHandshake, TimeoutError, ssl.SSLError):
        return ok("origins", "a page of a foreign origin may not connect")
    await opened.close()
    return warning(
        "origins",
        "a page of any origin may connect, in the name of its visitor",
        "name the origins of your pages in server.allowed_origins, instead of *",
    )


async def _websocket(target: Target, ping_seconds: asyncio.Future[float]) -> Finding:
    """Open a WebSocket and hold it. ``ping_seconds`` becomes the server's ping interval; 0: unknown."""
    began, refusal = time.monotonic(), None
    try:
        opened = await _open(target)
        async with opened:
            try:
                refusal = await _hold(opened, target, ping_seconds)
            except TimeoutError:
                return ok("WebSocket", f"it passes, and lasted for {target.hold_seconds:g} s")
            if refusal is not None:
                return _refused_connect(target, refusal)
            return _ended_websocket(target, opened, time.monotonic() - began)
    except InvalidStatus as refused:
        status = refused.response.status_code
        return error("WebSocket", f"the handshake is answered with HTTP {status}", UPGRADE_ADVICE)
    except (OSError, InvalidHandshake, TimeoutError) as problem:
        reason = str(problem) or type(problem).__name__
        return error("WebSocket", f"the handshake fails: {redact(reason)}", UPGRADE_ADVICE)
    finally:
        if not ping_seconds.done():
            ping_seconds.set_result(0.0)


async def _hold(
    opened: ClientConnection, target: Target, ping_seconds: asyncio.Future[float]
) -> WireError | None:
    """Connect, and answer pings until the connection ends. Return the error of the connect command, if any.

    Raises ``TimeoutError`` if the connection lasts. Its time begins with the reply to the connect command.
    """
    loop = asyncio.get_running_loop()
    with suppress(ConnectionClosed):
        await opened.send(json.dumps({"id": 1, "connect": {"token": target.token, "name": "doctor"}}))
        async with asyncio.timeout(OPEN_SECONDS) as limit:
            async for message in opened:
                for reply in decode_replies(str(message)):
                    if reply.error is not None:
                        return reply.error
                    if reply.connect is not None and not ping_seconds.done():
                        ping_seconds.set_result(min(reply.connect.ping, LONGEST_PING_SECONDS))
                        limit.reschedule(loop.time() + target.hold_seconds)
                    if reply.is_ping:
                        await opened.send(PONG)
    return None


def _refused_connect(target: Target, refusal: WireError) -> Finding:
    words = redact(printable(refusal.message))
    text = f"it passes; the server refused the connect command: {words} (error {refusal.code})"
    return warning("WebSocket", text, _holding_advice(target))


def _holding_advice(target: Target) -> str:
    if target.token:
        return "see the line client_refused in the log of the node, or give another --token"
    return "give --token, so that the connection can be held"


def _ended_websocket(target: Target, opened: ClientConnection, seconds: float) -> Finding:
    code = opened.close_code or 0
    if 3000 <= code < 5000:
        text = f"it passes; the server closed it: {printable(opened.close_reason or '')} ({code})"
        return warning("WebSocket", text, _holding_advice(target))
    return error("WebSocket", f"it passes, and was cut after {seconds:.0f} s", IDLE_FIX)


async def _event_stream(target: Target, ping_seconds: asyncio.Future[float]) -> Finding:
    """Open an event stream, on which the server writes at once, and again within its ping interval.

    A proxy that buffers passes on nothing, or what came with the head of the response. Some buffer only what
    they compress, so the request accepts compression, as that of a browser does.
    """
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", "Accept-Encoding": "gzip, br"}
    if target.token:
        headers["Authorization"] = f"Bearer {target.token}"
    url = add_channels(http_url(target.url, EVENTS_PATH), [target.channel])
    loop = asyncio.get_running_loop()
    began, pieces = loop.time(), 0
    try:
        async with (
            target.http() as http,
            asyncio.timeout(FIRST_EVENT_SECONDS) as limit,
            http.stream("GET", url, headers=headers, timeout=OPEN_SECONDS + target.hold_seconds) as response,
        ):
            if response.status_code != 200:
                return _refused_stream(response.status_code)
            async for _ in response.aiter_raw():
                pieces += 1
                if pieces == 1:
                    limit.reschedule(loop.time() + target.hold_seconds)
    except TimeoutError:
        return _held_stream(pieces, target.hold_seconds, await ping_seconds)
    except httpx.RequestError:
        pass  # cut, as below
    return error("event stream", f"it was cut after {loop.time() - began:.0f} s", IDLE_FIX)


def _held_stream(pieces: int, hold_seconds: float, ping_seconds: float) -> Finding:
    if not pieces:
        text = f"its first event did not arrive within {FIRST_EVENT_SECONDS:g} s: something buffers it"
        return error("event stream", text, BUFFERING_FIX)
    if pieces > 1:
        return ok("event stream", f"its events arrive at once, and it lasted for {hold_seconds:g} s")
    if ping_seconds and hold_seconds > ping_seconds:
        text = f"nothing arrived after its first event for {hold_seconds:g} s: something buffers it"
        return error("event stream", text, BUFFERING_FIX)
    text = (
        "its first event arrived, but no later one was due, so that it is not known whether they are buffered"
    )
    return warning(
        "event stream", text, f"give --seconds of more than client.ping_interval ({ping_seconds:g} s)"
    )


def _refused_stream(status: int) -> Finding:
    text = f"it cannot be checked: HTTP {status}"
    if status in (401, 403):
        return warning(
            "event stream", text, "give --token and --channel of a channel that it may subscribe to"
        )
    return error("event stream", text, "see the log of the node, and of the proxies before it")
