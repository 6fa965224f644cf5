"""The bytes of an event stream: HTTP/1.1 chunks, lines, events (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

EVENT_BYTES = 64 * 1024 * 1024
CHUNK_LINE_BYTES = 4096


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
                if not end and len(line) <= CHUNK_LINE_BYTES:
                    break
                size = int(line[:CHUNK_LINE_BYTES].split(b";")[0], 16)
                if size < 0:
                    raise ValueError("a chunk of negative size")
                self.is_complete = self.is_complete or not size
                self._left, data = size + 2, behind
            piece = data[: self._left]
            body += piece[: max(0, self._left - 2)]
            self._left -= len(piece)
            data = data[len(piece) :]
        self._rest = data
        return body


class EventParser:
    """Parses the text of an event stream. Lines end with a line feed, with or without a carriage return.

    An event of more than ``EVENT_BYTES`` raises ``ValueError``.
    """

    __slots__ = ("_data", "_last_id", "_name", "_rest", "_size")

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._size = 0  # of the data
        self._last_id = ""

    def feed(self, body: bytes) -> Iterator[ServerEvent]:
        """Yield the events that are complete. An event with an id alone is included, with empty data."""
        *lines, self._rest = (self._rest + body).split(b"\n")
        if len(self._rest) > EVENT_BYTES:
            raise ValueError(f"a line of more than {EVENT_BYTES:,} bytes")
        for line in lines:
            text = line.rstrip(b"\r").decode("utf-8", "replace")
            if text:
                self._add_line(text)
                continue
            yield ServerEvent(self._name, "\n".join(self._data), self._last_id)
            self._name, self._data, self._size = "", [], 0

    def _add_line(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._size += len(value) + 1
            if self._size > EVENT_BYTES:
                raise ValueError(f"an event of more than {EVENT_BYTES:,} bytes")
        elif name == "id":
            self._last_id = value
        elif name == "event":
            self._name = value
