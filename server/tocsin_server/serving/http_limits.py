"""uvicorn's HTTP protocol with limits that it lacks: on a head's time and size, and on unread responses.

Without them a client that sends half a request line, or that never reads its response, holds its socket for
ever.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tocsin_server.transports.websocket.handshake import HEAD_LIMIT_BYTES

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

STALL_SECONDS = 30.0
"""How long a client may read nothing while uvicorn's buffer for it (64 KiB) is full."""


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, dropped if its client stalls.

    A request's head may take as long as a connect command: `stale_timeout`. The time begins with the
    connection, or with the first byte of a later request. The lifespan state has the node under "node".
    """

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time limit of the first request."""
        super().connection_made(transport)
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
                self.transport.write(TOO_LARGE)
                self.transport.close()

    def pause_writing(self) -> None:
        """The buffer is full: start the time limit for reading."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

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
        super().on_headers_complete()

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            seconds = self.app_state["node"].settings.client.stale_timeout
            self._head_timer = self.loop.call_later(seconds, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self._head_bytes = 0
