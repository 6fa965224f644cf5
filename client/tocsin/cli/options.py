"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from tocsin import lenient

DEFAULT_URL = "http://127.0.0.1:8000"

Url = Annotated[
    str, typer.Option("--url", envvar="TOCSIN_URL", help="The server: its http(s):// or ws(s):// address.")
]


def read_data(text: str) -> Any:
    """JSON where it is JSON, passed on as it was written; else the text itself as a string."""
    try:
        lenient.decode(text)
    except ValueError:
        return text
    return msgspec.Raw(text.encode())
