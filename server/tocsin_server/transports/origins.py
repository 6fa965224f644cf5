"""Which pages may connect, by the Origin header of their requests, and the CORS headers of responses to them.

The origin is RFC 6454's; RFC 6455 §10.2 has a WebSocket server check it. The response headers are those of
CORS (Fetch standard, §3.3), which browsers apply to everything but WebSockets.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from starlette.requests import HTTPConnection
from starlette.responses import Response

SAME_HOST = "self"
"""Pattern of pages that come from the host and port they connect to."""

ORIGIN_REFUSED = "This origin may not connect (allowed_origins)."

PREFLIGHT_SECONDS = 300
"""How long a browser may remember the answer to a preflight request."""


def is_allowed(origin: str | None, host: str, patterns: Sequence[str]) -> bool:
    """Whether a request of this origin may be served. Only browsers send one; a request without any may."""
    if origin is None:
        return True
    if SAME_HOST in patterns and origin.partition("://")[2] == host:
        return True
    return any(fnmatchcase(origin.lower(), pattern.lower()) for pattern in patterns)


def origin_is_allowed(request: HTTPConnection, patterns: Sequence[str]) -> bool:
    """Whether an ASGI request may be served."""
    return is_allowed(request.headers.get("origin"), request.headers.get("host", ""), patterns)


def cors_headers(request: HTTPConnection, patterns: Sequence[str]) -> dict[str, str]:
    """Response headers that let a page of an allowed origin read the response, cookies included."""
    headers = {"Vary": "Origin"}
    origin = request.headers.get("origin")
    if origin is not None and origin_is_allowed(request, patterns):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
    return headers


def preflight_response(methods: str, request_headers: str) -> Response:
    """The answer to a preflight request: which methods and headers the real request may have."""
    headers = {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": request_headers,
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    return Response(status_code=204, headers=headers)
