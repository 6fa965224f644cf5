"""The back end of an application, as a real HTTP server: it answers, or fails, as a test says."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class SeenRequest:
    """A request that the back end has read."""

    path: str
    headers: dict[str, str]
    body: bytes
    certificate: Json | None
    """That of the client, if it showed one."""

    @property
    def json(self) -> Json:
        found: Json = json.loads(self.body)
        return found


def http(body: bytes | Json, status: str = "200 OK", *headers: str) -> bytes:
    """A whole HTTP response."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    own = (f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Content-Type: application/json")
    return "\r\n".join([*own, *headers, "", ""]).encode() + content


Answer = Callable[[SeenRequest], bytes | Awaitable[bytes | None] | None]


@dataclass
class BackEnd:
    """A running back end. Tests replace `answer`; None of it closes the connection."""

    answer: Answer
    requests: list[SeenRequest] = field(default_factory=list)
    connections: int = 0
    """How many were accepted."""
    port: int = 0
    scheme: str = "http"
    server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/centrifugo/{{event}}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            while await self._respond(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:  # at the end of a test; asyncio would log it as an error
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])
        }
        body = await reader.readexactly(int(headers["content-length"]))
        request = SeenRequest(lines[0].split()[1], headers, body, writer.get_extra_info("peercert"))
        self.requests.append(request)
        answer = self.answer(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer is None:
            return False
        writer.write(answer)
        await writer.drain()
        return True

    async def stop(self) -> None:
        """Accept no further connections."""
        assert self.server is not None
        self.server.close()
        await self.server.wait_closed()

    def close_connections(self) -> None:
        for writer in self._open:
            writer.transport.abort()


def admits(_request: SeenRequest) -> bytes:
    """The answer that permits what was asked."""
    return http({"result": {"user": "56"}})


@asynccontextmanager
async def back_end_running(
    answer: Answer = admits, *, context: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[BackEnd]:
    """A back end on a port of this machine, until the end of the block."""
    back_end = BackEnd(answer, scheme="https" if context else "http")
    back_end.server = await asyncio.start_server(back_end.serve, "127.0.0.1", port, ssl=context)
    back_end.port = back_end.server.sockets[0].getsockname()[1]
    try:
        yield back_end
    finally:
        back_end.close_connections()
        await back_end.stop()
