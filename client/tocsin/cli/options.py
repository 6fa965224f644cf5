"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from tocsin.protocol import json_fallback

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[
    str, typer.Option("--url", envvar="TOCSIN_URL", help="The server: its http(s):// or ws(s):// address.")
]


def read_secret(secret: str) -> str:
    """Return a secret without surrounding white space, as the server reads it; report quotes around it."""
    secret = secret.strip()
    if len(secret) > 1 and secret[0] == secret[-1] and secret[0] in "\"'":
        typer.echo(
            "tocsin: the secret is in quotes, and they count: did a file of environment variables keep them?",
            err=True,
        )
    return secret


def read_data(text: str) -> Any:
    """Return the text as it is if it is JSON, otherwise as a string."""
    try:
        json_fallback.decode(text)
    except ValueError:
        return text
    return msgspec.Raw(text.encode())
