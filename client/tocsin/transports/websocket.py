"""One WebSocket connection, from opening to close; it reports to a session by events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidProxy,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
)
from websockets.http11 import Response

from tocsin.errors import BadProtocol, PermissionDenied, ServerUnreachable, TocsinError, Unauthorized
from tocsin.protocol.codec import split_frame
from tocsin.session.events import Received, SessionEvent, TransportLost, TransportOpened, TransportRefused

from .address import redact
from .http import (
    PASSING_STATUSES,
    describe_response,
    password_error,
    raise_at_interpreter_end,
    redirect_error,
    retry_after,
)
from .proxies import Proxy, find_proxy

_LOGGER = logging.getLogger(__name__)
_LOGGER.setLevel(logging.WARNING)  # websockets logs addresses and frames, which hold tokens, at debug

OPEN_SECONDS = 10.0
CLOSE_SECONDS = 5.0  # protocol §8: wait this long for the server's close frame
MESSAGE_BYTES = 64 * 1024 * 1024  # a reply with 300 recovered publications of 64 KiB has 19 MiB
UNSENT_BYTES = 64 * 1024 * 1024
UPGRADE_ADVICE = (
    "if the address is right, a proxy in between does not pass the Upgrade header (nginx needs "
    "proxy_http_version 1.1, and proxy_set_header for Upgrade and Connection); an event stream needs none"
)


class WebSocketTransport:
    """A connection that is opened once. It calls ``on_event`` with each event, until ``close`` is called.

    A server that does not read loses the connection once ``UNSENT_BYTES`` are queued for it.

    The mutable state is the queue of outgoing messages, its size, ``_is_closing``, the socket and the task
    that opens it.
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
        self._unsent_characters = 0
        self._is_closing = False
        self._opening: asyncio.Task[Any] | None = None
        self._socket: ClientConnection | None = None

    def send(self, text: str) -> None:
        """Queue a message. It is dropped if the connection is lost before it is sent."""
        self._outgoing.put_nowait(text)
        self._unsent_characters += len(text)
        if self._unsent_characters > UNSENT_BYTES:
            self._report(TransportLost(0, "the server does not read: too much is queued for it"))
            self._is_closing = True
            self._abort()

    def close(self) -> None:
        """Send what is queued, then close, in ``CLOSE_SECONDS``. No further event is reported."""
        self._is_closing = True
        self._outgoing.put_nowait(None)
        if self._opening is not None:
            self._opening.cancel()
        elif self._socket is not None:
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._abort)

    def _abort(self) -> None:
        if self._socket is not None:
            self._socket.transport.abort()

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
            async with _Connect(
                self._url,
                additional_headers=self._headers,
                compression=None,
                ping_interval=None,
                open_timeout=OPEN_SECONDS,
                close_timeout=CLOSE_SECONDS,
                max_size=MESSAGE_BYTES,
                proxy=proxy.url if proxy is not None else None,
                create_connection=_Connection,
                logger=_LOGGER,
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
        self._socket = socket
        self._report(TransportOpened())
        writer = asyncio.create_task(self._write(socket))
        try:
            async for frame in socket:
                for part in split_frame(frame):
                    self._report(Received(part))
        except ConnectionClosed:
            pass  # its code is read below, as after a clean close
        finally:
            self._socket = None
            writer.cancel()
            await asyncio.wait([writer])
        self._report(TransportLost(socket.close_code or 0, socket.close_reason or "connection closed"))

    async def _write(self, socket: ClientConnection) -> None:
        try:
            while (text := await self._outgoing.get()) is not None:
                await socket.send(text)
                self._unsent_characters -= len(text)
            await socket.close()
        except ConnectionClosed:
            pass  # the reader reports it

    def _report(self, event: SessionEvent) -> None:
        if not self._is_closing:
            self._on_event(event)


class _Connect(connect):
    """Follows no redirect: the error names the address to use."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _Connection(ClientConnection):
    """Is aborted by a server that sends endless pings of WebSocket and does not read the pongs."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_write_buffer_size() > UNSENT_BYTES:
            self.transport.abort()


def _event_for_failure(error: Exception, proxy: Proxy | None) -> TransportLost | TransportRefused:
    """Return the event of a failed attempt: refused if another attempt cannot succeed."""
    match error:
        case OSError():
            pass  # also an untrusted certificate, which is a ValueError too
        case InvalidStatus():
            return _event_for_response(error.response)
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


def _event_for_response(response: Response) -> TransportLost | TransportRefused:
    """A redirect or a 4xx response to the handshake is final. A proxy's 502 or a busy server's 503 is not."""
    status, body = response.status_code, (response.body or b"").decode(errors="replace")
    headers = httpx.Headers(list(response.headers.raw_items()))  # a header may come twice
    if status == 401 and (password := password_error(headers)):
        return TransportRefused(password)
    if redirect := redirect_error("the handshake", status, headers):
        return TransportRefused(redirect)
    if not _is_final(status):
        return TransportLost(0, describe_status(status, body), retry_after(headers))
    refusal: TocsinError = BadProtocol(describe_status(status, body))
    if status == 401:
        refusal = Unauthorized(f"the server refused the connection: {describe_response(status, body)}")
    elif status == 403:
        reason = f"an origin or a path that it does not serve: {describe_response(status, body)}"
        refusal = PermissionDenied(103, f"the server refused the connection: {reason}")
    return TransportRefused(refusal)


def _is_final(status: int) -> bool:
    return 400 <= status < 500 and status not in PASSING_STATUSES
