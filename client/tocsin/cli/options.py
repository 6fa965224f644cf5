"""Options that several commands share."""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
import typer

from tocsin.protocol import json_fallback

from . import fail

DEFAULT_URL = "http://127.0.0.1:8000"


def read_option(context: typer.Context, parameter: typer.CallbackParam, value: Any) -> Any:
    """Return the value of an option without surrounding white space, as the server reads its configuration.

    Files and secrets often add a line end. Quotation marks that a file of environment variables kept are
    refused, as the server does.
    """
    if isinstance(value, list):
        return [read_option(context, parameter, one) for one in value]
    if not isinstance(value, str):
        return value
    text = value.strip("\ufeff \t\r\n")
    source = context.get_parameter_source(parameter.name or "")
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    if is_quoted and source is not None and source.name == "ENVIRONMENT":
        fail(f"{parameter.envvar} is in quotation marks: write its value without them")
    return text


Url = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="TOCSIN_URL",
        help="The server: its http(s):// or ws(s):// address.",
        callback=read_option,
    ),
]
ApiKey = Annotated[str, typer.Option(envvar="TOCSIN_API_KEY", help="An API key.", callback=read_option)]


_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def read_duration(text: str, option: str) -> int:
    """Return the seconds of a duration such as 300, 5m, 12h or 30d. Ends the command if it is none."""
    match = re.fullmatch(r"([0-9]+)([smhd]?)", text)
    if match is None:
        fail(f"{option} is {text!r}, but must be a number of seconds, or a duration like 5m, 12h or 30d")
    return int(match[1]) * _UNITS[match[2]]


def read_data(text: str) -> Any:
    """Return the text as it is if it is JSON, otherwise as a string."""
    try:
        json_fallback.decode(text)
    except ValueError:
        return text
    return msgspec.Raw(text.encode())
