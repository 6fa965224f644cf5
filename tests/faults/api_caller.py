"""A minimal client of the HTTP API. With httpx, API calls take half the CPU that the fault suite has."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TypeVar

from tests.support.configs import API_KEY
from tests.support.tcp import HOST
from tests.support.timing import SOON
from tocsin import BadProtocol
from tocsin.api import Call, read_response
from tocsin.protocol.codec import encode_json

Answer = TypeVar("Answer")
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class ApiCaller:
    """Calls one node, over as many kept-alive connections as there are concurrent calls.

    The mutable state is the list of idle connections; only `call` and `close` change it.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[Connection] = []

    async def call(self, call: Call[Answer]) -> Answer:
        """Call once.

        Raises TocsinError if the node refuses, OSError (also TimeoutError) or EOFError if it does not reply.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(SOON / 2):
                connection = await self._connection()
                text = await self._exchange(connection, call)
        except BaseException:
            if connection is not None:
                await _abort(connection)
            raise
        self._idle.append(connection)
        return read_response(call, text)

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection[0].at_eof():
                return connection
            await _abort(connection)
        return await asyncio.open_connection(HOST, self._port)

    async def _exchange(self, connection: Connection, call: Call[Answer]) -> str:
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
        """Close the idle connections."""
        while self._idle:
            await _abort(self._idle.pop())


async def _abort(connection: Connection) -> None:
    connection[1].transport.abort()
    with contextlib.suppress(OSError):
        await connection[1].wait_closed()
