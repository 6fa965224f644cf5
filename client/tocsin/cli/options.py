"""Options that several commands have."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[
    str, typer.Option("--url", envvar="TOCSIN_URL", help="The server: its http(s):// or ws(s):// address.")
]


def read_data(text: str) -> Any:
    """JSON where it is JSON, else the text itself as a string."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(word: str) -> Any:
    raise ValueError(word)  # NaN and Infinity are words, not JSON
