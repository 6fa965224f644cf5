"""uvicorn's HTTP protocol with limits that it lacks: on a head's time and size, and on unread responses.

Without them a client that sends half a request line, or that never reads its response, holds its socket for
ever.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tocsin_server.transports.refusals import log_refusal
from tocsin_server.transports.websocket.handshake import HEAD_LIMIT_BYTES

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent

log = structlog.get_logger()

HEAD_TOO_LARGE = f"The head of the request has more than {HEAD_LIMIT_BYTES} bytes."

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

STALL_SECONDS = 30.0
"""How long a client may read nothing while uvicorn's buffer for it (64 KiB) is full."""


class _CloseDelimited:
    """Sends the response to an HTTP/1.0 request without chunks, which HTTP/1.0 lacks (RFC 9112 §6.1).

    A response without a length ends with its connection. uvicorn would send it in chunks.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._has_length = True

    async def send(self, message: ASGISendEvent) -> None:
        """Send one message of a response."""
        if message["type"] == "http.response.start":
            self._has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
            if not self._has_length:
                self._cycle.chunked_encoding = False
        elif message["type"] == "http.response.body" and not self._has_length:
            # uvicorn counts the bytes of a response that is not chunked
            is_more = message.get("more_body", False)
            self._cycle.expected_content_length = len(message.get("body", b"")) + int(is_more)
        await self._send(message)


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, dropped if its client stalls.

    A request's head may take as long as a connect command: `stale_timeout`. The time begins with the
    connection, or with the first byte of a later request. The lifespan state has the node under "node".
    """

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request. A proxy may have said who the client is."""
        super().connection_made(transport)
        if (source := self.app_state.get("source")) is not None:
            self.client = (source.address, source.port)
            self.scheme = "https" if source.is_tls else self.scheme
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop all time limits."""
        self._stop_head_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the bytes, and refuse a head that grows too large."""
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT_BYTES and not self.transport.is_closing():
                log_refusal("http", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, HEAD_TOO_LARGE)
                self.transport.write(TOO_LARGE)
                self.transport.close()

    def pause_writing(self) -> None:
        """The buffer is full: start the time limit for reading."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._drop, "stalled")

    def resume_writing(self) -> None:
        """The buffer has room again: stop the time limit for reading."""
        self._stop_stall_timer()
        super().resume_writing()

    def on_message_begin(self) -> None:
        """A request begins: start its time limit, unless that of the first request runs already."""
        super().on_message_begin()
        self._start_head_timer()

    def on_headers_complete(self) -> None:
        """The head is complete: stop its time limit."""
        self._stop_head_timer()
        previous = self.cycle
        super().on_headers_complete()
        if self.cycle is not previous and self.scope["http_version"] == "1.0":
            self.cycle.send = _CloseDelimited(self.cycle).send  # type: ignore[method-assign]

    def _drop(self, reason: str) -> None:
        log.info("http_connection_dropped", reason=reason)
        self.transport.abort()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            seconds = self.app_state["node"].settings.client.stale_timeout
            self._head_timer = self.loop.call_later(seconds, self._drop, "head_timeout")

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self._head_bytes = 0
