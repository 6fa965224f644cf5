"""An event stream's bytes: HTTP/1.1 chunks, then lines, then events (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class ServerEvent(NamedTuple):
    """One event; ``last_id`` is the one in force, as EventSource keeps it."""

    name: str
    data: str
    last_id: str


class ChunkReader:
    """Takes the chunks off a body (RFC 9112 §7.1). ``is_over`` after the last one."""

    __slots__ = ("_left", "_rest", "is_over")

    def __init__(self) -> None:
        self._rest = b""
        self._left = 0  # of the current chunk, with the line end behind it
        self.is_over = False

    def feed(self, data: bytes) -> bytes:
        """Give the bytes of the body in this piece."""
        data, body = self._rest + data, b""
        while data:
            if not self._left:
                line, end, behind = data.partition(b"\r\n")
                if not end:
                    break
                size = int(line.split(b";")[0], 16)
                self.is_over = self.is_over or not size
                self._left, data = size + 2, behind
            piece = data[: self._left]
            body += piece[: max(0, self._left - 2)]
            self._left -= len(piece)
            data = data[len(piece) :]
        self._rest = data
        return body


class EventReader:
    """Cuts the text of an event stream into events; lines end with a line feed, with or without a return."""

    __slots__ = ("_data", "_last_id", "_name", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._last_id = ""

    def feed(self, body: bytes) -> Iterator[ServerEvent]:
        """Give the events that are complete; one with an id alone is given too, without data."""
        *lines, self._rest = (self._rest + body).split(b"\n")
        for line in lines:
            text = line.rstrip(b"\r").decode("utf-8", "replace")
            if text:
                self._take(text)
                continue
            yield ServerEvent(self._name, "\n".join(self._data), self._last_id)
            self._name, self._data = "", []

    def _take(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "id":
            self._last_id = value
        elif name == "event":
            self._name = value
