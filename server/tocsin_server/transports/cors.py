"""What a browser is told about pages of other origins (Fetch standard, §3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import HTTPConnection
from starlette.responses import Response

from tocsin_server.transports.origins import is_allowed

PREFLIGHT_SECONDS = 300
"""How long a browser may remember the answer to a preflight."""


def origin_is_allowed(request: HTTPConnection, patterns: Sequence[str]) -> bool:
    """Whether the page that makes this request may have an answer."""
    return is_allowed(request.headers.get("origin"), request.headers.get("host", ""), patterns)


def cors_headers(request: HTTPConnection, patterns: Sequence[str]) -> dict[str, str]:
    """Let a page of an allowed origin read the answer, to a request that may carry its cookies."""
    headers = {"Vary": "Origin"}
    origin = request.headers.get("origin")
    if origin is not None and origin_is_allowed(request, patterns):
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
    return headers


def preflight(methods: str, request_headers: str) -> Response:
    """Answer a browser that asks before it makes a request."""
    headers = {
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": request_headers,
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    }
    return Response(status_code=204, headers=headers)
