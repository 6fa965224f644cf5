"""Which Host is that of another site, on a node that needs no key."""

import socket

import pytest

from tocsin_server.transports.hosts import names_another_site

ORIGINS = ("*", "self", "https://push.example.com", "http://*.dev.example:*")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8000", False),
        ("[::1]:8000", False),
        ("203.0.113.7", False),
        ("localhost:8000", False),
        ("LOCALHOST", False),
        ("app.localhost:8000", False),
        ("tocsin:8000", False),
        (socket.gethostname(), False),
        ("", False),
        ("push.example.com", False),
        ("push.example.com.", True),
        ("push.example.com:8000", True),
        ("a.dev.example:9", False),
        ("evil.example", True),
        ("evil.example:8000", True),
        ("127.0.0.1.evil.example:8000", True),
        ("localhost.evil.example", True),
    ],
)
def test_a_name_with_a_dot_is_another_site(host: str, expected: bool) -> None:
    """Unless it is this machine's own, or an origin names it by more than a star."""
    assert names_another_site(host, ORIGINS) is expected
