"""A TCP connection that sends arbitrary bytes and reads WebSocket frames."""

import asyncio
import contextlib
import json
import os
import re
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from enum import IntEnum
from typing import Any, NamedTuple

from tests.support.server import Server
from tests.support.timing import SOON
from tests.support.wire_client import Close

HANDSHAKE = (
    b"GET /connection/websocket HTTP/1.1\r\n"
    b"Host: 127.0.0.1\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
MASK = b"\x01\x02\x03\x04"


class Op(IntEnum):
    """Opcodes (RFC 6455 §11.8)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Frame(NamedTuple):
    """A received frame."""

    op: int
    payload: bytes


def frame(
    payload: bytes | str, op: int = Op.TEXT, *, fin: bool = True, reserved: int = 0, masked: bool = True
) -> bytes:
    """A frame (RFC 6455 §5.2), valid or not. `reserved` are the bits RSV1 to RSV3."""
    data = payload.encode() if isinstance(payload, str) else payload
    head = bytes([fin << 7 | reserved << 4 | op])
    mask_bit = 0x80 if masked else 0
    if len(data) < 126:
        head += bytes([mask_bit | len(data)])
    elif len(data) < 65536:
        head += bytes([mask_bit | 126]) + struct.pack("!H", len(data))
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", len(data))
    if not masked:
        return head + data
    return head + MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(data))


def commands(*each: Any) -> bytes:
    """One text frame with these commands."""
    return frame("\n".join(json.dumps(command) for command in each))


def close_frame(code: int = 1000, reason: bytes = b"") -> bytes:
    return frame(struct.pack("!H", code) + reason, Op.CLOSE)


class ResetReader(asyncio.StreamReader):
    """Gives all bytes that arrived before the server reset the connection, and then its end.

    A server that closes while the client still sends resets the connection. asyncio then drops what it has
    not yet read, and raises an error in place of what it has.
    """

    def set_exception(self, exc: Exception) -> None:
        transport = self._transport  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            while data := os.read(transport.get_extra_info("socket").fileno(), 65536):
                self.feed_data(data)
        self.feed_eof()


async def open_streams(
    limit: int = 2**16, **target: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """The streams of a connection to a `host` and `port`, or of a connected `sock`."""
    loop = asyncio.get_running_loop()
    reader = ResetReader(limit, loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, **target)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class RawConnection:
    """Sends bytes, and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes. A connection that the server has already closed is no error here."""
        if self._writer.is_closing():
            return
        with contextlib.suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    async def send_slowly(self, data: bytes) -> None:
        """Send every byte in a write of its own."""
        for index in range(len(data)):
            await self.send(data[index : index + 1])
            await asyncio.sleep(0)

    async def read_some(self) -> bytes:
        """Read what arrives first; b"" if the server closes instead."""
        async with asyncio.timeout(SOON):
            return await self._reader.read(4096)

    def end(self) -> None:
        """Close this side's direction. The server's direction stays open."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def response(self) -> int:
        """Read the head of the HTTP response to the handshake, and return its status."""
        async with asyncio.timeout(SOON):
            head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1])

    async def read_until_responses(self, count: int) -> list[int]:
        """Read the next responses, each of which has a length or is chunked; their statuses."""
        statuses = []
        for _ in range(count):
            async with asyncio.timeout(SOON):
                head = await self._reader.readuntil(b"\r\n\r\n")
                statuses.append(int(head.split(b" ", 2)[1]))
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if length is None:
                    await self._reader.readuntil(b"0\r\n\r\n")
                else:
                    await self._reader.readexactly(int(length[1]))
        return statuses

    async def upgrade(self) -> None:
        await self.send(HANDSHAKE)
        assert await self.response() == 101

    async def frames(self) -> AsyncGenerator[Frame]:
        """The frames until the server closes the connection."""
        while True:
            try:
                async with asyncio.timeout(SOON):
                    received = await self._frame()
            except asyncio.IncompleteReadError:
                return
            yield received

    async def messages(self) -> AsyncGenerator[Any]:
        """The messages until the server closes the connection, without pings."""
        async for op, payload in self.frames():
            if op == Op.TEXT:
                for line in payload.decode().split("\n"):
                    if message := json.loads(line):
                        yield message

    async def closed(self) -> Close:
        """Read until the server closes the connection. Returns its code and reason."""
        close = Close(1006, "")
        async for op, payload in self.frames():
            if op == Op.CLOSE:
                close = Close(int.from_bytes(payload[:2]), payload[2:].decode())
                await self.send(frame(payload, Op.CLOSE))
                self.end()
        return close

    async def read_to_end(self) -> bytes:
        """All bytes until the server closes the connection."""
        async with asyncio.timeout(SOON):
            return await self._reader.read()

    async def _frame(self) -> Frame:
        first, second = await self._reader.readexactly(2)
        assert not first & 0x70, "no extension was negotiated, so no reserved bit is set"
        assert not second & 0x80, "a server does not mask (RFC 6455 §5.1)"
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._reader.readexactly(8))
        return Frame(first & 0x0F, await self._reader.readexactly(length))


@contextlib.asynccontextmanager
async def open_tcp(server: Server) -> AsyncIterator[RawConnection]:
    """A connection on which nothing has been sent yet."""
    reader, writer = await open_streams(host="127.0.0.1", port=server.port)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        yield RawConnection(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def open_raw_websocket(server: Server) -> AsyncIterator[RawConnection]:
    """A connection after the WebSocket handshake."""
    async with open_tcp(server) as connection:
        await connection.upgrade()
        yield connection
