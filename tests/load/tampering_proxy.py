"""A proxy that drops, doubles or swaps chosen publications on WebSockets."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator

from websockets.frames import Frame, Opcode

from tests.support.server import Server
from tests.support.tcp import forward, tcp_connection, tcp_server
from tocsin_load import frames
from tocsin_load.frames import FrameReader

_NUMBER = re.compile(rb'"n":([0-9]+),"at"')


class TamperingProxy:
    """`drop`, `double` and `swap` hold numbers of publications, as counted in their channel."""

    def __init__(self, server: Server) -> None:
        self.drop: set[int] = set()
        self.double: set[int] = set()
        self.swap: set[int] = set()  # sent after the next one
        self.port = 0
        self._server = server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with tcp_connection(self._server.port) as (up_reader, up_writer):
            await asyncio.gather(forward(reader, up_writer), self._tamper(up_reader, writer))

    async def _tamper(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            if b" 101 " not in head.split(b"\r\n")[0]:
                await forward(reader, writer)
                return
            messages = FrameReader()
            held: list[bytes] = []
            while data := await reader.read(65536):
                for opcode, payload in messages.feed(data):
                    lines = payload.split(b"\n") if opcode == frames.TEXT else [payload]
                    for line in lines:
                        for sent in self._replacement(line, held):
                            writer.write(Frame(Opcode(opcode), sent).serialize(mask=False))
        writer.close()

    def _replacement(self, line: bytes, held: list[bytes]) -> Iterator[bytes]:
        found = _NUMBER.search(line)
        number = int(found[1]) if found else 0
        if number in self.swap:
            held.append(line)
            return
        if number not in self.drop:
            yield line
        if number in self.double:
            yield line
        if number:
            yield from held
            held.clear()


@contextlib.asynccontextmanager
async def tampering(server: Server) -> AsyncIterator[TamperingProxy]:
    proxy = TamperingProxy(server)
    async with tcp_server(proxy.serve_connection) as proxy.port:
        yield proxy
