"""Which pages may connect, by the Origin header of their requests, and the CORS headers of responses to them.

The origin is RFC 6454's; RFC 6455 §10.2 has a WebSocket server check it. The response headers are those of
CORS (Fetch standard, §3.3), which browsers apply to everything but WebSockets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from starlette.requests import HTTPConnection
from starlette.responses import Response

SAME_HOST = "self"
"""Pattern of pages that come from the host and port they connect to."""

EVERY_ORIGIN = "*"
"""Pattern of all pages. They may read responses without the cookies of their user."""

ORIGIN_REFUSED = "This origin may not connect (allowed_origins)."

_HEADER_NAME = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")

PREFLIGHT_SECONDS = 300
"""How long a browser may remember the answer to a preflight request."""


def is_allowed(origin: str | None, host: str, patterns: Sequence[str]) -> bool:
    """Whether a request of this origin may be served. Only browsers send one; a request without any may."""
    if origin is None:
        return True
    if SAME_HOST in patterns and host and origin.partition("://")[2] == host:
        return True
    return any(_matches(origin.lower(), pattern.lower()) for pattern in patterns)


def _matches(origin: str, pattern: str) -> bool:
    """Whether `*` and `?` of a pattern match. A bracket is that of an IPv6 address, and matches itself."""
    return fnmatchcase(origin, pattern.replace("[", "[[]"))


def is_named(origin: str | None, host: str, patterns: Sequence[str]) -> bool:
    """Whether an origin is allowed by more than the pattern of every origin."""
    return is_allowed(origin, host, [pattern for pattern in patterns if pattern != EVERY_ORIGIN])


def origin_is_allowed(request: HTTPConnection, patterns: Sequence[str]) -> bool:
    """Whether an ASGI request may be served."""
    return is_allowed(request.headers.get("origin"), request.headers.get("host", ""), patterns)


def origin_is_named(request: HTTPConnection, patterns: Sequence[str]) -> bool:
    """Whether cookies of a request count: it comes from a named origin, from the server's own, or no page."""
    return is_named(request.headers.get("origin"), request.headers.get("host", ""), patterns)


def cors_headers(request: HTTPConnection, patterns: Sequence[str]) -> dict[str, str]:
    """Response headers that let a page of an allowed origin read the response.

    They allow cookies only for origins that are named. `"*"` would let any page read with its user's cookie.
    """
    headers = {"Vary": "Origin"}
    origin = request.headers.get("origin")
    if origin is not None and origin_is_named(request, patterns):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
    elif origin is not None and EVERY_ORIGIN in patterns:
        headers["Access-Control-Allow-Origin"] = EVERY_ORIGIN
    return headers


def preflight_response(request: HTTPConnection, methods: str, request_headers: str) -> Response:
    """The answer to a preflight request: which methods and headers the real request may have.

    All headers that it names are allowed besides `request_headers`: tracing libraries add their own to every
    request of a page.
    """
    asked = request.headers.get("access-control-request-headers", "")
    names = [name.strip() for name in asked.split(",") if _HEADER_NAME.fullmatch(name.strip())]
    headers = {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": ", ".join([request_headers, *names]),
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    return Response(status_code=204, headers=headers)
