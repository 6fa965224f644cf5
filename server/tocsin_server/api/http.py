"""What the API reads of an HTTP request and writes as its response, with ASGI and without it.

A publication takes some 20 µs, and a general web framework's request, router and response take five times as
long. So the most frequent request of a node uses none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import final

import msgspec
from msgspec import Struct
from starlette._utils import get_route_path
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.types import Scope, Send

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"

_PRIVATE = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""No browser stores a response or guesses its type (access.py)."""

_HEAD = b"%bcontent-length: %d\r\ncontent-type: %b\r\n" + b"".join(b"%b: %b\r\n" % one for one in _PRIVATE)

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

_encode = msgspec.json.Encoder().encode


class ApiRequest(Struct, frozen=True):
    """One HTTP request without its body, wherever it comes from."""

    method: str
    path: str
    """The path, without the prefix at which the application is mounted."""
    query: bytes
    headers: Mapping[bytes, bytes]
    """By names in lower case."""
    find_address: Callable[[], str]
    """Called only for what is logged."""
    root_path: str = ""
    """The prefix at which the application is mounted."""

    @classmethod
    def of_scope(cls, scope: Scope) -> ApiRequest:
        """The request of an ASGI scope."""
        return cls(
            scope["method"],
            get_route_path(scope),
            scope["query_string"],
            first_values(scope["headers"]),
            lambda: scope["client"][0] if scope.get("client") else "",
            scope.get("root_path", ""),
        )

    @property
    def full_path(self) -> str:
        """The path with the prefix at which the application is mounted."""
        return self.root_path + self.path

    @property
    def address(self) -> str:
        """The client's address; empty on a unix socket."""
        return self.find_address()

    def header(self, name: bytes) -> str:
        """The value of the header with this name in lower case; "" if there is none."""
        return self.headers.get(name, b"").decode("latin-1")

    def parameter(self, name: str) -> str | None:
        """The value of a parameter of the query."""
        return QueryParams(self.query).get(name) if self.query else None


def first_values(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name. Of several with the same name, the first one counts."""
    return dict(reversed(headers))


@final
class ApiResponse(Struct, frozen=True, gc=False):
    """One response. As with positions, `type(…) is ApiResponse` tells it from a future of one."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Headers besides those that every response has; their names are in lower case."""
    media_type: bytes = JSON

    @property
    def head(self) -> bytes:
        """The status line and the headers, each with its line break, without the empty line behind them."""
        head = _HEAD % (_STATUS_LINES[self.status], len(self.body), self.media_type)
        return head + b"".join([b"%b: %b\r\n" % header for header in self.headers]) if self.headers else head

    async def send(self, send: Send) -> None:
        """Send the response by ASGI."""
        headers = (
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", self.media_type),
            *_PRIVATE,
            *self.headers,
        )
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
