"""``tocsin pub``: publish messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from tocsin.errors import TocsinError
from tocsin.models import Position
from tocsin.publisher import Publisher

from . import fail
from .options import DEFAULT_URL, ApiKey, Url, read_data
from .output import to_line


def pub(
    channel: Annotated[str, typer.Argument(help="The channel.")],
    data: Annotated[
        str | None,
        typer.Argument(help="JSON, or any text. Without it, each line of standard input is a message."),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
) -> None:
    """Publish a message, or one per line of standard input. Prints each position as a JSON line.

    Text that is not JSON is sent as a string. Empty lines are skipped. Stops at the first error, with exit
    code 1.
    """
    if data is None and sys.stdin.isatty():
        fail("give DATA, or messages on standard input, one per line")
    published = 0
    try:
        with Publisher(url, api_key) as publisher:
            for message in _messages(data):
                _print(channel, publisher.publish(channel, message))
                published += 1
    except BrokenPipeError:
        # so that Python does not fail to flush it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except (TocsinError, ValueError) as error:
        where = (
            "" if data is not None else f" (message {published + 1}; the messages before it are published)"
        )
        fail(f"{error}{where}")


def _messages(data: str | None) -> Iterator[Any]:
    if data is not None:
        yield read_data(data)
        return
    sys.stdin.reconfigure(encoding="utf-8-sig")  # type: ignore[union-attr] # a TextIOWrapper, here
    for line in sys.stdin:
        if line.strip():
            yield read_data(line.strip())


def _print(channel: str, position: Position | None) -> None:
    fields: dict[str, Any] = {"channel": channel}
    if position is not None:
        fields |= {"offset": position.offset, "position": str(position)}
    if sys.stdout is None:
        fail("published, but standard output is closed")
    try:
        sys.stdout.write(to_line(fields) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        fail(f"published, but standard output cannot be written: {error.strerror}")
