"""Tokens as an application makes them: PyJWT, HS256 (docs/protocol.md §12)."""

import time
from typing import Any

import jwt

SECRET = "a secret shared by the tests and their servers, longer than needed"


def connection_token(user: str, *, secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A connection token of `user`; claims that are None are omitted."""
    return _sign({"sub": user, **claims}, secret, algorithm)


def subscription_token(
    user: str, channel: str, *, secret: str = SECRET, algorithm: str = "HS256", **claims: Any
) -> str:
    """A token that lets the connections of `user` subscribe to `channel`."""
    return _sign({"sub": user, "channel": channel, **claims}, secret, algorithm)


def seconds_from_now(seconds: float) -> int:
    """A NumericDate for `exp`, `nbf` and `expire_at`, negative `seconds` for the past."""
    return int(time.time() + seconds)


def _sign(claims: dict[str, Any], secret: str, algorithm: str) -> str:
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, secret, algorithm=algorithm)
