"""HTTP as uvicorn speaks it, with two limits it lacks: heads have to arrive and answers to be read in time.

Without them a peer that sends half a request line and then nothing, or never reads what it asked for, holds
its socket for ever.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_LIMIT_BYTES = 65_536
"""Size of a request's head. uvicorn's parser takes any."""

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

STALL_SECONDS = 30.0
"""How long a peer may read nothing while uvicorn's buffer for it (64 KiB) is full."""


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, dropped if its peer stalls.

    A request's head may take as long as a connect, stale_timeout: from the connection, or from the first byte
    of a later request, to the end of the head. The node is found in the lifespan state, under "node".
    """

    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._head_came()
        self._reads_again()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, until a head that is not whole yet has grown too large."""
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT_BYTES and not self.transport.is_closing():
                self.transport.write(TOO_LARGE)
                self.transport.close()

    def pause_writing(self) -> None:
        """The buffer is full."""
        super().pause_writing()
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The buffer has room again."""
        self._reads_again()
        super().resume_writing()

    def on_message_begin(self) -> None:
        """A request begins; the first one is expected already."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_came()
        super().on_headers_complete()

    def _reads_again(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _expect_head(self) -> None:
        if self._head_timer is None:
            seconds = self.app_state["node"].settings.client.stale_timeout
            self._head_timer = self.loop.call_later(seconds, self.transport.abort)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self._head_bytes = 0
