"""Requests that `HttpProtocol` answers without ASGI, and without a task unless they have to wait.

uvicorn and `HttpProtocol` see such a request where they look for the cycle of an ASGI request and response.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from tocsin_server.api.http import TEXT, ApiResponse
from tocsin_server.eager_future import EagerFuture

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from tocsin_server.access import DirectApi

BODY_LIMIT_BYTES = 65_536
"""How large a body may be. It is kept until it is complete, as much of a body as uvicorn keeps."""

Outcome = ApiResponse | EagerFuture[ApiResponse] | Coroutine[Any, Any, ApiResponse]
Answer = Callable[[bytes], Outcome]

_CRASHED = ApiResponse(b"Internal Server Error", 500, media_type=TEXT)

log = structlog.get_logger()


class _NothingWaits:
    """Stands where a cycle has an event for its application."""

    def set(self) -> None:
        """Wake nothing."""


class DirectCalls:
    """The calls of one listening address that need no ASGI: their API, and how responses are written.

    The mutable state is the headers of uvicorn, which every response has, as one text. uvicorn replaces them
    each second, because the time is among them.
    """

    def __init__(self, api: DirectApi, server_state: ServerState) -> None:
        self.api = api
        self._server_state = server_state
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._default_lines = b""

    def bytes_of(self, response: ApiResponse, *, keep_alive: bool) -> bytes:
        """A response as it is sent."""
        headers = self._server_state.default_headers
        if headers is not self._default_headers:
            self._default_headers = headers
            self._default_lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        last = b"\r\n" if keep_alive else b"connection: close\r\n\r\n"
        return b"".join((response.head, self._default_lines, last, response.body))


class DirectCycle:
    """One request without ASGI, and its response."""

    __slots__ = ("_answer", "body", "disconnected", "keep_alive", "response_complete")

    message_event = _NothingWaits()
    response_started = False
    """Responses are written whole."""

    def __init__(self, answer: Answer | ApiResponse, *, keep_alive: bool) -> None:
        """`answer` is what gives the response to a body, or the response that refuses the head."""
        self._answer = answer
        self.keep_alive = keep_alive
        self.body: list[bytes] = []
        """The parts of the body that have arrived."""
        self.disconnected = False
        self.response_complete = False

    @property
    def is_refused(self) -> bool:
        """Whether the response does not depend on the body."""
        return type(self._answer) is ApiResponse

    def outcome(self) -> Outcome:
        """The response to the request, now that its body is complete, or what to await for it."""
        body, self.body = b"".join(self.body), []
        if type(self._answer) is ApiResponse:
            return self._answer
        try:
            return self._answer(body)
        except Exception as error:  # noqa: BLE001 - it is logged
            return self._crashed(error)

    def result_of(self, outcome: EagerFuture[ApiResponse]) -> ApiResponse:
        """The response in a future that has ended, without being cancelled."""
        try:
            return outcome.result()
        except Exception as error:  # noqa: BLE001 - it is logged
            return self._crashed(error)

    async def finish(self, outcome: Coroutine[Any, Any, ApiResponse]) -> ApiResponse:
        """Wait for the response."""
        try:
            return await outcome
        except Exception as error:  # noqa: BLE001 - it is logged
            return self._crashed(error)

    def cancel(self, msg: object = None) -> None:  # noqa: ARG002 - as `Task.cancel`
        """Send no response, because the server stops. uvicorn calls this as if it were a task's."""
        self.disconnected = True

    def _crashed(self, error: Exception) -> ApiResponse:
        """Log an error of the server. The connection ends, as with an ASGI application that raises."""
        log.error("api_request_crashed", exc_info=error)
        self.keep_alive = False
        return _CRASHED
