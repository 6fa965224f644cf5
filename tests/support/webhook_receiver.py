"""A receiver of webhooks on a real socket, whose answers a test chooses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from ssl import SSLContext
from typing import Any, NamedTuple


class Request(NamedTuple):
    """One request: its path with the query, its headers with names in lower case, and its body."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def ids(self) -> list[str]:
        """The ids of its events."""
        return [event["id"] for event in self.events]

    @property
    def events(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = json.loads(self.body)["events"]
        return events

    @property
    def delivery(self) -> str:
        return self.headers["x-tocsin-delivery"]


class Receiver:
    """Records requests. `answer` returns the status of each, `headers` go with it.

    While `may_answer` is not set, requests are read and not answered.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self.answer: Callable[[Request], int] = lambda _: 204
        self.headers: dict[str, str] = {}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.in_flight = 0
        self.most_in_flight = 0
        self.port = 0
        self._arrived = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def ids(self) -> list[str]:
        """The ids of all events that were taken, in the order of their requests."""
        return [one for request in self.requests if self.answer(request) < 300 for one in request.ids]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for requests until a condition holds."""
        while not condition():
            self._arrived.clear()
            await self._arrived.wait()

    @asynccontextmanager
    async def serving(
        self, port: int = 0, tls: SSLContext | None = None, scheme: str = "http"
    ) -> AsyncIterator[str]:
        """Listen, by default on a free port. Yields the address."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield f"{scheme}://127.0.0.1:{self.port}/events"
        finally:
            server.close()
            for writer in self._writers:
                writer.close()
            self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                request = await _read(reader)
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    self.requests.append(request)
                    self._arrived.set()
                    await self.may_answer.wait()
                    headers = {"Content-Length": "0", **self.headers}
                    lines = [f"HTTP/1.1 {self.answer(request)} Answer"]
                    lines += [f"{name}: {value}" for name, value in headers.items()]
                    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
                    await writer.drain()
                finally:
                    self.in_flight -= 1
        writer.close()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
    body = await reader.readexactly(int(headers["content-length"]))
    return Request(head[0].split(" ")[1], headers, body)
