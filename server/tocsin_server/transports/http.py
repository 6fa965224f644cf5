"""HTTP as uvicorn speaks it, with a limit it lacks: a request's head has to arrive in time.

Without it a peer that sends half a request line and then nothing holds its socket for ever.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection, dropped if a request's head takes longer than a connect may: stale_timeout.

    That is from the connection, or from the first byte of a later request, to the end of the head. The node
    is found in the lifespan state, under "node".
    """

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        self._head_came()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A request begins; the first one is expected already."""
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head_came()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            seconds = self.app_state["node"].settings.client.stale_timeout
            self._head_timer = self.loop.call_later(seconds, self.transport.abort)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
