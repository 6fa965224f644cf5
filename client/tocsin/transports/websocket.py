"""One WebSocket connection, from opening to close; it reports to a session by events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
)

from tocsin.errors import BadProtocol, PermissionDenied, ServerUnreachable, TocsinError, Unauthorized
from tocsin.session.events import Received, SessionEvent, TransportLost, TransportOpened, TransportRefused

from .address import redact
from .http import PASSING_STATUSES, describe_response, password_error, raise_at_interpreter_end
from .proxies import Proxy, find_proxy

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 5.0  # protocol §8: wait this long for the server's close frame
MESSAGE_BYTES = 64 * 1024 * 1024  # a reply with 300 recovered publications of 64 KiB has 19 MiB
UPGRADE_ADVICE = (
    "if the address is right, a proxy in between does not pass the Upgrade header (nginx needs "
    "proxy_http_version 1.1, and proxy_set_header for Upgrade and Connection); an event stream needs none"
)


class WebSocketTransport:
    """A connection that is opened once. It calls ``on_event`` with each event, until ``close`` is called.

    The mutable state is the queue of outgoing messages, ``_is_closing`` and the opening task.
    """

    def __init__(
        self,
        url: str,
        on_event: Callable[[SessionEvent], None],
        headers: Mapping[str, str],
        ssl: SSLContext | None,
    ) -> None:
        self._url = url
        self._on_event = on_event
        self._headers = headers
        is_secure = url.startswith("wss:")
        self._options: dict[str, Any] = {"ssl": ssl} if ssl is not None and is_secure else {}
        self._outgoing: asyncio.Queue[str | None] = asyncio.Queue()
        self._is_closing = False
        self._opening: asyncio.Task[Any] | None = None

    def send(self, text: str) -> None:
        """Queue a message. It is dropped if the connection is lost before it is sent."""
        self._outgoing.put_nowait(text)

    def close(self) -> None:
        """Send what is queued, then close. No further event is reported."""
        self._is_closing = True
        self._outgoing.put_nowait(None)
        if self._opening is not None:
            self._opening.cancel()

    async def run(self) -> None:
        """Open the connection, send and receive until it is closed. Cancelling drops it at once."""
        if self._is_closing:
            return
        self._opening = asyncio.current_task()
        proxy = find_proxy(self._url)
        try:
            if proxy is not None:
                proxy.check()
            # no compression (protocol §18.3), no pings: the session checks the protocol's own pings
            async with connect(
                self._url,
                additional_headers=self._headers,
                compression=None,
                ping_interval=None,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                max_size=MESSAGE_BYTES,
                proxy=proxy.url if proxy is not None else None,
                **self._options,
            ) as socket:
                await self._exchange(socket)
        except (
            OSError,
            InvalidHandshake,
            InvalidProxy,
            InvalidURI,
            EOFError,
            ImportError,
            RuntimeError,
            ServerUnreachable,
            ValueError,
        ) as error:
            if self._opening is None and not isinstance(error, OSError | EOFError):
                raise  # not about the connection
            self._report(_event_for_failure(error, proxy))

    async def _exchange(self, socket: ClientConnection) -> None:
        self._opening = None
        self._report(TransportOpened())
        writer = asyncio.create_task(self._write(socket))
        try:
            async for frame in socket:
                self._report(Received(frame))
        except ConnectionClosed:
            pass  # its code is read below, as after a clean close
        finally:
            writer.cancel()
            await asyncio.wait([writer])
        self._report(TransportLost(socket.close_code or 0, socket.close_reason or "connection closed"))

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while (text := await self._outgoing.get()) is not None:
                await socket.send(text)
            await socket.close()
        except ConnectionClosed:
            pass  # the reader reports it

    def _report(self, event: SessionEvent) -> None:
        if not self._is_closing:
            self._on_event(event)


def _event_for_failure(error: Exception, proxy: Proxy | None) -> TransportLost | TransportRefused:
    """Return the event of a failed attempt: refused if another attempt cannot succeed."""
    match error:
        case OSError():
            pass  # also an untrusted certificate, which is a ValueError too
        case InvalidStatus():
            body = (error.response.body or b"").decode(errors="replace")
            if error.response.status_code == 401 and (password := password_error(error.response.headers)):
                return TransportRefused(password)
            return _event_for_status(error.response.status_code, body)
        case ServerUnreachable():
            return TransportRefused(error)
        case InvalidURI():
            return TransportRefused(BadProtocol(redact(str(error))))
        case InvalidProxyStatus() if proxy is not None and _is_final(error.response.status_code):
            return TransportRefused(proxy.refused(error.response.status_code))
        case InvalidProxy() | ImportError() | ValueError() if proxy is not None:
            return TransportRefused(proxy.unusable(error))
        case RuntimeError():
            return TransportRefused(_interpreter_error(error))
        case ImportError() | ValueError():
            raise error
    hint = f" ({proxy.hint})" if proxy is not None else ""
    return TransportLost(0, f"cannot connect: {error or type(error).__name__}{hint}")


def _interpreter_error(error: RuntimeError) -> ServerUnreachable:
    try:
        raise_at_interpreter_end(error)
    except ServerUnreachable as ending:
        return ending
    raise error


def describe_status(status: int, body: str) -> str:
    """Return why a handshake failed that got another status than 101, with the start of the body."""
    answer = describe_response(status, body)
    if status in PASSING_STATUSES or status >= 500:
        return f"cannot connect: {answer}"
    return f"no WebSocket endpoint at this address: {answer}; {UPGRADE_ADVICE}"


def _event_for_status(status: int, body: str) -> TransportLost | TransportRefused:
    """A 4xx response to the handshake is final. A proxy's 502 or a busy server's 503 is not."""
    if not _is_final(status):
        return TransportLost(0, describe_status(status, body))
    refusal: TocsinError = BadProtocol(describe_status(status, body))
    if status == 401:
        refusal = Unauthorized(f"the server refused the connection: {describe_response(status, body)}")
    elif status == 403:
        reason = f"an origin or a path that it does not serve: {describe_response(status, body)}"
        refusal = PermissionDenied(103, f"the server refused the connection: {reason}")
    return TransportRefused(refusal)


def _is_final(status: int) -> bool:
    return 400 <= status < 500 and status not in PASSING_STATUSES
