"""``tocsin token``: create a token for tests. Applications sign their own."""

from __future__ import annotations

import json
import time
import warnings
from typing import Annotated, Any

import jwt
import typer

from . import fail
from .options import read_duration, read_option

SAFE_SECRET_BYTES = 32  # RFC 7518 §3.2, for SHA-256


def token(
    user: Annotated[str, typer.Option(help="The user's id; empty: an anonymous user.")] = "",
    channel: Annotated[str, typer.Option(help="Create a subscription token for this channel.")] = "",
    ttl: Annotated[str, typer.Option(help="How long it is valid: 300, 5m, 12h, 30d; 0: for ever.")] = "1h",
    token_id: Annotated[str, typer.Option("--id", help="The token's id (jti), to revoke it by.")] = "",
    info: Annotated[str, typer.Option(metavar="JSON", help="The info that other clients see.")] = "",
    secret: Annotated[
        str,
        typer.Option(
            envvar="TOCSIN_CLIENT__TOKEN_HMAC_SECRET",
            help="The server's token_hmac_secret.",
            callback=read_option,
        ),
    ] = "",
) -> None:
    """Create a connection token, or with --channel a subscription token, signed with HS256."""
    if not secret:
        fail("the secret is missing: give --secret, or set TOCSIN_CLIENT__TOKEN_HMAC_SECRET")
    claims: dict[str, Any] = {"sub": user, "iat": int(time.time())}
    if token_id:
        claims["jti"] = token_id
    if channel:
        claims["channel"] = channel
    if seconds := read_duration(ttl, "--ttl"):
        claims["exp"] = claims["iat"] + seconds
    if info:
        claims["info"] = _json(info)
    if len(secret.encode()) < SAFE_SECRET_BYTES:
        typer.echo(f"tocsin: the secret is weak: it has fewer than {SAFE_SECRET_BYTES} bytes", err=True)
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)  # it says the same at length
    typer.echo(jwt.encode(claims, secret, algorithm="HS256"))


def _json(info: str) -> Any:
    try:
        return json.loads(info)
    except ValueError as error:
        return fail(f"--info is not JSON: {error}")
