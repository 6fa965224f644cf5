"""What the API reads of an HTTP request and writes as its response, straight from and to ASGI.

A publication takes some 20 µs, and a general web framework's request, router and response take five times as
long. So the most frequent request of a node uses none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from starlette._utils import get_route_path
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

RESPONSE_WRITER = "tocsin.response_writer"
"""The ASGI extension by which a server writes a whole response at once: `writer(send, head, body)`.

`send` is that of the application, and `head` the status line with headers, each with its line break. The
writer returns False, and writes nothing, unless `send` is its server's own: so no middleware is passed over.
"""

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"

_PRIVATE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""No browser stores a response or guesses its type (access.py)."""

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

_encode = msgspec.json.Encoder().encode


class ApiRequest:
    """One HTTP request."""

    __slots__ = ("_headers", "_receive", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self._receive = receive
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))  # of several, the first one

    @property
    def path(self) -> str:
        """The path, without the prefix at which the application is mounted."""
        return get_route_path(self.scope)

    @property
    def address(self) -> str:
        """The client's address; empty on a unix socket."""
        client = self.scope.get("client")
        return client[0] if client else ""

    def header(self, name: bytes) -> str:
        """The value of the header with this name in lower case; "" if there is none."""
        return self._headers.get(name, b"").decode("latin-1")

    def parameter(self, name: str) -> str | None:
        """The value of a parameter of the query."""
        query = self.scope["query_string"]
        return QueryParams(query).get(name) if query else None

    async def receive(self) -> Message:
        """The next part of the body (`http.request`), or `http.disconnect`."""
        return await self._receive()


class ApiResponse(NamedTuple):
    """One response."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Headers besides those that every response has; their names are in lower case."""
    media_type: bytes = JSON

    async def send(self, scope: Scope, send: Send) -> None:
        """Send the response."""
        headers = (
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", self.media_type),
            *_PRIVATE,
            *self.headers,
        )
        writer = scope.get("extensions", {}).get(RESPONSE_WRITER) if scope["method"] == "POST" else None
        if writer is not None:
            head = _STATUS_LINES[self.status] + b"".join([b"%b: %b\r\n" % header for header in headers])
            if writer(send, head, self.body):
                return
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_response(content: object, status: int = 200) -> ApiResponse:
    """A response with a value that msgspec encodes."""
    return ApiResponse(_encode(content), status)


def error_response(error: HTTPException) -> ApiResponse:
    """The response with the status, the sentence and the headers of an error."""
    return ApiResponse(error.detail.encode(), error.status_code, _headers(error.headers or {}), TEXT)


def status_error(status: HTTPStatus, headers: Mapping[str, str] | None = None) -> HTTPException:
    """An error whose sentence is the name of its status."""
    return HTTPException(status, status.phrase, dict(headers or {}))


def _headers(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())
