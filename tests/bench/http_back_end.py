"""A minimal back end that publishes over HTTP, with one keep-alive connection.

The figures contain the server's work, and not that of an HTTP library.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any, Self

from tests.support.tcp import tcp_connection


class BackEnd:
    """Sends one request at a time. A connection that the server closed while idle is opened again."""

    def __init__(self, port: int, key: str = "") -> None:
        self._port = port
        self._key = f"X-API-Key: {key}\r\n".encode() if key else b""
        self._stack = AsyncExitStack()
        self._reader = asyncio.StreamReader()
        self._reader.feed_eof()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    async def _connect(self) -> None:
        await self._stack.aclose()
        self._reader, self._writer = await self._stack.enter_async_context(tcp_connection(self._port))

    async def post(self, method: str, body: bytes) -> bytes:
        """Call the API, and return the body of its reply. Raises RuntimeError unless it succeeds."""
        if self._reader.at_eof():
            await self._connect()
        self._writer.write(
            b"POST /api/%b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n%b"
            b"Content-Length: %d\r\n\r\n%b" % (method.encode(), self._key, len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        answer = await self._reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200") or b'"error"' in answer:
            raise RuntimeError(f"the node answered {answer!r}")
        return answer


def publication(channel: str, data: Any) -> dict[str, Any]:
    """The parameters of `publish`."""
    return {"channel": channel, "data": data}


def as_json(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()
