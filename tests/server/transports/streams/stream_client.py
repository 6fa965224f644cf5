"""A client of a stream, which reads the response from its socket message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from tests.server.served_node import ServedNode
from tests.support.timing import SOON

Json = dict[str, Any]

CONNECT = '{"id":1,"connect":{}}'


class StreamClient:
    """One response, and the requests that send its commands."""

    def __init__(
        self, served: ServedNode, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._served = served
        self._is_sse = kind.endswith("sse")
        self._reader = reader
        self.writer = writer
        self._unread = b""
        self.head = ""
        self.status = 0
        self.retry = 0
        self.session = ""
        self.node = ""

    async def read_head(self) -> None:
        """Read the head of the response."""
        async with asyncio.timeout(SOON):
            self.head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        self.status = int(self.head.split(" ")[1])

    async def next(self) -> Json:
        """The next message. Raises EOFError at the end of the response."""
        end = b"\n\n" if self._is_sse else b"\n"
        async with asyncio.timeout(SOON):
            while True:
                while end not in self._unread:
                    await self._read_chunk()
                block, _, self._unread = self._unread.partition(end)
                name, _, value = block.partition(b": ") if self._is_sse else (b"data", b"", block)
                if name == b"retry":
                    self.retry = int(value)
                    continue
                assert name == b"data", block
                message: Json = json.loads(value)
                return message

    async def _read_chunk(self) -> None:
        size = int(await self._reader.readline(), 16)
        self._unread += await self._reader.readexactly(size)
        assert await self._reader.readexactly(2) == b"\r\n"
        if not size:
            raise EOFError

    async def rest(self) -> list[Json]:
        """All messages up to the end of the response."""
        messages = []
        try:
            while True:
                messages.append(await self.next())
        except EOFError:
            return messages

    async def connected(self) -> Json:
        """Read the reply to the connect command, which every command of the client needs."""
        result: Json = (await self.next())["connect"]
        self.session, self.node = result.get("session", ""), result["node"]
        return result

    async def post(self, *commands: Json) -> httpx.Response:
        """Send commands."""
        body = {"session": self.session, "node": self.node, "data": "\n".join(map(json.dumps, commands))}
        async with self._served.http() as http:
            return await http.post("/emulation", json=body)

    async def call(self, command_id: int, **method: Any) -> Json:
        """Send one command, and return the next message."""
        assert (await self.post({"id": command_id, **method})).status_code == 204
        return await self.next()


@asynccontextmanager
async def streaming(
    served: ServedNode,
    kind: str,
    commands: str = CONNECT,
    *,
    method: str = "",
    version: str = "1.1",
    headers: str = "",
    receive_buffer: int = 0,
) -> AsyncIterator[StreamClient]:
    """Request a stream. Events are requested by GET unless `method` is another one."""
    method = method or ("GET" if kind.endswith("sse") else "POST")
    path = f"/connection/{kind}"
    if method == "GET":
        path += f"?cf_connect={quote(commands)}" if commands else ""
    body = commands.encode() if method == "POST" else b""
    head = f"{method} {path} HTTP/{version}\r\nHost: here\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    async with served.tcp(receive_buffer) as (raw, writer):
        writer.write(head.encode() + body)
        client = StreamClient(served, kind, raw._reader, writer)
        await client.read_head()
        yield client
