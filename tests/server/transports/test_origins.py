"""Which origins are allowed, and the response headers that let a page read a response."""

import pytest
from starlette.requests import Request

from tocsin_server.config.options import ServerOptions
from tocsin_server.transports.origins import cors_headers, is_allowed

PATTERNS = ("self", "https://*.example.com")


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, True),
        ("http://push.test:8000", True),
        ("https://push.test:8000", True),
        ("https://app.example.com", True),
        ("HTTPS://App.Example.COM", True),
        ("http://push.test", False),
        ("http://push.test:8000.evil.example", False),
        ("https://example.com", False),
        ("http://app.example.com", False),
        ("null", False),
        ("", False),
    ],
)
def test_an_origin_is_allowed_by_a_pattern(origin: str | None, expected: bool) -> None:
    """Or if there is none, since only browsers send one."""
    assert is_allowed(origin, "push.test:8000", PATTERNS) is expected


def test_a_page_of_any_origin_may_connect_where_the_pattern_is_a_star() -> None:
    assert is_allowed("null", "push.test", ["*"])
    assert not is_allowed("https://push.test", "push.test", [])


@pytest.mark.parametrize(
    "origin", ["http://[::1]:3000", "file://", "null", "capacitor://localhost", "https://app.example"]
)
def test_every_configurable_origin_matches_itself_and_no_other(origin: str) -> None:
    """Also those with brackets, and those of pages without a host."""
    options = ServerOptions(allowed_origins=[origin])
    assert is_allowed(origin, "push.test", options.allowed_origins)
    for other in ("http://1:3000", "http://:", "file", "https://app.example.evil", ""):
        assert not is_allowed(other, "push.test", options.allowed_origins)


@pytest.mark.parametrize("origin", ["file://", "null", ""])
def test_a_request_without_a_host_does_not_make_an_origin_the_servers_own(origin: str) -> None:
    """HTTP/1.0 needs no Host."""
    assert not is_allowed(origin, "", ["self"])


@pytest.mark.parametrize(
    ("origin", "is_readable"), [("https://app.example.com", True), ("https://evil.example", False)]
)
def test_a_page_may_read_the_response_where_its_origin_is_allowed(origin: str, is_readable: bool) -> None:
    """Every response depends on the origin, so caches keep one for each."""
    request = Request({"type": "http", "headers": [(b"origin", origin.encode()), (b"host", b"push.test")]})
    headers = cors_headers(request, PATTERNS)
    assert headers["Vary"] == "Origin"
    assert ("Access-Control-Allow-Origin" in headers) is is_readable
