"""An event stream read by hand: fast, and with everything in view that an EventSource would hide."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from tests.support.server import Server
from tests.support.timing import SOON

LONGEST_LINE = 2**16
"""Bytes. As much again is read ahead."""


class Event(NamedTuple):
    """One event: its type, its data (None without any) and its id (None without any)."""

    kind: str
    data: Any
    id: str | None


class EventStream:
    """The events of one response, in order; comments are passed over."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def abort(self) -> None:
        """Be gone without a word; whoever reads the events gets a ConnectionError."""
        self._writer.transport.abort()

    async def next(self) -> Event:
        """The next event. Raises ConnectionError at the end of the stream."""
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
        """One line of the stream, whose chunks are cut at events' ends."""
        line = await self._reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the stream ended")
        return line.decode().rstrip("\r\n")


@contextlib.asynccontextmanager
async def open_event_stream(
    server: Server, path: str, last_event_id: str | None = None
) -> AsyncIterator[EventStream]:
    """A stream of this server."""
    async with open_event_stream_at(server.port, path, last_event_id) as stream:
        yield stream


@contextlib.asynccontextmanager
async def open_event_stream_at(
    port: int, path: str, last_event_id: str | None = None, longest_line: int = LONGEST_LINE
) -> AsyncIterator[EventStream]:
    """A stream whose response was 200, or ConnectionRefusedError.

    HTTP/1.0, so that its body comes without chunks.
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
