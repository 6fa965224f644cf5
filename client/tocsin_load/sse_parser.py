"""The bytes of an event stream: HTTP/1.1 chunks, lines, events (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class ServerEvent(NamedTuple):
    """One event. ``last_id`` is the last id received, as in EventSource."""

    name: str
    data: str
    last_id: str


class ChunkDecoder:
    """Decodes a chunked body (RFC 9112 §7.1). ``is_complete`` is True after the last chunk."""

    __slots__ = ("_left", "_rest", "is_complete")

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0  # of the current chunk, including the line end after it
        self.is_complete = False

    def feed(self, data: bytes) -> bytes:
        """Return the bytes of the body in this piece. Raises ``ValueError`` unless it is chunked."""
        data, body = self._rest + data, b""
        while data:
            if not self._left:
                line, end, behind = data.partition(b"\r\n")
                if not end:
                    break
                size = int(line.split(b";")[0], 16)
                self.is_complete = self.is_complete or not size
                self._left, data = size + 2, behind
            piece = data[: self._left]
            body += piece[: max(0, self._left - 2)]
            self._left -= len(piece)
            data = data[len(piece) :]
        self._rest = data
        return body


class EventParser:
    """Parses the text of an event stream. Lines end with a line feed, with or without a carriage return."""

    __slots__ = ("_data", "_last_id", "_name", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._last_id = ""

    def feed(self, body: bytes) -> Iterator[ServerEvent]:
        """Yield the events that are complete. An event with an id alone is included, with empty data."""
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            text = line.rstrip(b"\r").decode("utf-8", "replace")
            if text:
                self._add_line(text)
                continue
            yield ServerEvent(self._name, "\n".join(self._data), self._last_id)
            self._name, self._data = "", []

    def _add_line(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id":
            self._last_id = value
        elif name == "event":
            self._name = value
