"""Checks of a sample token: its times against this machine's clock. Its signature is not verified."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jwt

from .findings import Finding, error, ok, warning

CLOCK_SECONDS = 5.0  # the server's default of client.token_leeway
LONG_SECONDS = 30 * 86_400.0


def token_findings(token: str, now: float) -> Iterator[Finding]:
    """Check a token that was made just now. No finding repeats it."""
    try:
        header, claims = jwt.get_unverified_header(token), _claims(token)
    except jwt.InvalidTokenError as problem:
        yield error(
            "token", f"it is not a JSON Web Token: {problem}", "give the token that a client is given"
        )
        return
    if str(header.get("alg", "")).lower() == "none":
        yield error("token", "it has no signature (alg none)", "let the issuer sign its tokens")
    yield from _clock(_number(claims, "iat"), now)
    yield from _expiry(_number(claims, "exp"), now)
    not_before = _number(claims, "nbf")
    if not_before is not None and not_before > now + CLOCK_SECONDS:
        seconds = round(not_before - now)
        yield error("token", f"it is not valid before {seconds} s from now (nbf)", "synchronize the clocks")


def _clock(issued_at: float | None, now: float) -> Iterator[Finding]:
    if issued_at is None:
        yield warning(
            "clock of the issuer", "the token does not say when it was made (iat)", "let the issuer set iat"
        )
    elif issued_at > now + CLOCK_SECONDS:
        yield error(
            "clock of the issuer",
            f"the token was made {issued_at - now:.0f} s in the future",
            "synchronize the clocks of both machines (NTP); until then raise client.token_leeway",
        )
    else:
        yield ok("clock of the issuer", f"the token was made {now - issued_at:.0f} s ago")


def _expiry(expires_at: float | None, now: float) -> Iterator[Finding]:
    if expires_at is None:
        yield warning("token", "it never expires, and can only be revoked", "let the issuer set exp")
    elif expires_at <= now:
        yield error(
            "token",
            f"it expired {now - expires_at:.0f} s ago",
            "give a new one; if it is new, synchronize the clocks of both machines (NTP)",
        )
    elif expires_at - now > LONG_SECONDS:
        days = (expires_at - now) / 86_400
        yield warning("token", f"it is valid for {days:.0f} days", "let tokens expire after minutes or hours")
    else:
        yield ok("token", f"it is valid for {expires_at - now:.0f} s")


def _claims(token: str) -> dict[str, Any]:
    options: Any = {"verify_signature": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False}
    return jwt.decode(token, options=options)


def _number(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    return float(value) if isinstance(value, int | float) else None
