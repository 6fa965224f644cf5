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


def read_data(text: str) -> Any:
    """Return the text as it is if it is JSON, otherwise as a string."""
    try:
        json_fallback.decode(text)
    except ValueError:
        return text
    return msgspec.Raw(text.encode())
