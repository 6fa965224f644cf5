"""Calls of the HTTP API, as cheap as they get: with httpx they take half of what this suite has of a core."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TypeVar

from tests.support.configs import API_KEY
from tests.support.proxies import HOST
from tests.support.timing import SOON
from tocsin import BadProtocol
from tocsin.api import Call, read_response
from tocsin.protocol.codec import encode_json

Answer = TypeVar("Answer")
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Caller:
    """Calls one node, on connections that are kept; as many as are needed at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def call(self, call: Call[Answer]) -> Answer:
        """Ask once. Raises TocsinError for a refusal, OSError or EOFError where no answer comes in time."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(SOON / 2):
                connection = await self._connection()
                text = await self._ask(connection, call)
        except BaseException:
            if connection is not None:
                await _hang_up(connection)
            raise
        self._idle.append(connection)
        return read_response(call, text)

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection[0].at_eof():
                return connection
            await _hang_up(connection)
        return await asyncio.open_connection(HOST, self._port)

    async def _ask(self, connection: Connection, call: Call[Answer]) -> str:
        reader, writer = connection
        body = encode_json(call.body).encode()
        head = f"POST /api/{call.method} HTTP/1.1\r\nHost: {HOST}\r\nX-API-Key: {API_KEY}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines if line)
        text = (await reader.readexactly(int(headers["content-length"]))).decode()
        if " 200 " not in status:
            raise BadProtocol(f"{status}: {text}")
        return text

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            await _hang_up(self._idle.pop())


async def _hang_up(connection: Connection) -> None:
    connection[1].transport.abort()
    with contextlib.suppress(OSError):
        await connection[1].wait_closed()
