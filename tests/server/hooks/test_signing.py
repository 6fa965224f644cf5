"""The signature of requests to back ends, checked with the verification that the documentation gives."""

from __future__ import annotations

import hashlib
import hmac

from tocsin_server.hooks.signing import signature

SECRET = b"a secret of 32 random bytes, once"


def test_the_signature_is_the_hmac_of_the_time_and_the_body() -> None:
    expected = hmac.new(SECRET, b'1767225600.{"a":1}', hashlib.sha256).hexdigest()
    assert signature([SECRET], b'{"a":1}', 1767225600) == f"t=1767225600,v1={expected}"


def test_several_secrets_make_one_signature_each() -> None:
    """While a secret is replaced, a receiver that knows one of both can verify."""
    both = signature([SECRET, b"next"], b"{}", 1)
    assert both.split(",") == [
        "t=1",
        *(signature([secret], b"{}", 1).partition(",")[2] for secret in (SECRET, b"next")),
    ]
