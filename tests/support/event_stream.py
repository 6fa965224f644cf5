"""A minimal client of event streams. It is fast, and shows everything that an EventSource hides."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from tests.support.server import Server
from tests.support.timing import SOON

LONGEST_LINE = 2**16
"""Bytes. The reader buffers up to twice as much."""


class Event(NamedTuple):
    """One event. `data` and `id` are None if the event has none."""

    kind: str
    data: Any
    id: str | None


class EventStream:
    """The events of one response, in order. Comments are skipped."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def abort(self) -> None:
        """Reset the connection. `next` then raises ConnectionError."""
        self._writer.transport.abort()

    async def next(self) -> Event:
        """Wait for the next event. Raises ConnectionError at the end of the stream."""
        kind, data, position = "message", "", None
        while line := await self._line():
            field, _, value = line.partition(": ")
            if field == "event":
                kind = value
            elif field == "data":
                data += value
            elif field == "id":
                position = value
            elif line == "id:":
                position = ""
        if kind == "message" and not data and position is None:
            return await self.next()  # a comment, or a retry
        return Event(kind, json.loads(data) if data else None, position)

    async def _line(self) -> str:
        """Read one line, without its end."""
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the stream ended")
        return line.decode().rstrip("\r\n")


@contextlib.asynccontextmanager
async def open_event_stream(
    server: Server, path: str, last_event_id: str | None = None
) -> AsyncIterator[EventStream]:
    """Open an event stream of a server. See `open_event_stream_at`."""
    async with open_event_stream_at(server.port, path, last_event_id) as stream:
        yield stream


@contextlib.asynccontextmanager
async def open_event_stream_at(
    port: int, path: str, last_event_id: str | None = None, longest_line: int = LONGEST_LINE
) -> AsyncIterator[EventStream]:
    """Open an event stream. Raises ConnectionRefusedError unless the status is 200.

    The request is HTTP/1.0: the body of its response is not chunked.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=longest_line)
    resume = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id is not None else ""
    writer.write(f"GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n{resume}\r\n".encode())
    try:
        async with asyncio.timeout(SOON):
            head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head:
            raise ConnectionRefusedError(head)
        yield EventStream(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
