"""What all attacks are made of: sockets with an address of their own, floods, and unread responses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

from tests.support.raw_connection import HANDSHAKE, frame
from tests.support.tcp import HOST

ADDRESS = "127.0.0.66"
"""The attacker's address. Honest clients have another one."""

HOLD_SECONDS = 20.0
"""How long an attacker keeps a connection of which it reads nothing."""

PAUSE_SECONDS = 0.02
"""How long an attacker waits before it connects again."""


class Target(NamedTuple):
    """What an attacker knows of the system."""

    port: int
    """The port of the node under attack."""
    redis_port: int


Attack = Callable[[Target], Coroutine[Any, Any, None]]
"""Attacks until it is cancelled."""


class Socket:
    """One connection of the attacker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        """Send, as fast as the node reads. Raises OSError once the node has closed."""
        if self.writer.is_closing():  # uvloop's transport would raise a RuntimeError
            raise ConnectionResetError("the node has closed the connection")
        self.writer.write(data)
        await self.writer.drain()

    async def flood(self, data: bytes) -> None:
        """Send the same bytes again and again until the node closes."""
        while True:
            await self.send(data)

    async def flood_and_read(self, data: bytes) -> None:
        """Like `flood`, and discard everything that the node answers."""
        reading = asyncio.create_task(self.discard())
        try:
            await self.flood(data)
        finally:
            reading.cancel()

    async def discard(self) -> None:
        """Read until the node closes."""
        while await self.reader.read(262_144):
            pass

    async def hold_unread(self) -> None:
        """Keep the connection for a while, and read nothing that the node sends."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(HOLD_SECONDS)

    async def read_slowly(self) -> None:
        """Keep the connection for a while, and read one byte a second."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as sock:
            for _ in range(round(HOLD_SECONDS)):
                await asyncio.sleep(1)
                with contextlib.suppress(BlockingIOError):
                    sock.recv(1)

    async def send_commands(self, *commands: dict[str, object]) -> None:
        """Send commands in one frame."""
        await self.send(frame("\n".join(map(json.dumps, commands))))


@contextlib.asynccontextmanager
async def open_socket(target: Target, receive_buffer: int = 0) -> AsyncIterator[Socket]:
    """A TCP connection from the attacker's address. A small receive buffer is soon full if it is not read."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    try:
        sock.bind((ADDRESS, 0))
        await asyncio.get_running_loop().sock_connect(sock, (HOST, target.port))
        reader, writer = await asyncio.open_connection(sock=sock)
    except BaseException:
        sock.close()
        raise
    try:
        yield Socket(reader, writer)
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def open_websocket(
    target: Target, *, token: str | None = None, query: str = "", receive_buffer: int = 0
) -> AsyncIterator[Socket]:
    """An open WebSocket. With a `token` ("" for none) the connect command has been sent and answered."""
    async with open_socket(target, receive_buffer) as attacker:
        await attacker.send(HANDSHAKE.replace(b" HTTP/1.1", f"{query} HTTP/1.1".encode(), 1))
        await attacker.reader.readuntil(b"\r\n\r\n")
        if token is not None:
            await attacker.send_commands({"id": 1, "connect": {"token": token} if token else {}})
            await attacker.reader.read(1)
        yield attacker


async def again_and_again(attack: Callable[[], Awaitable[None]], times_at_once: int = 1) -> None:
    """Attack on so many connections at once. Each begins again when the node has closed it."""

    async def repeat() -> None:
        while True:
            with contextlib.suppress(OSError, EOFError):
                await attack()
            await asyncio.sleep(PAUSE_SECONDS)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(times_at_once):
            tasks.create_task(repeat())


def request(target: str, *, method: str = "GET", body: bytes = b"", **headers: str) -> bytes:
    """The bytes of an HTTP request. Underscores in names of headers are written as hyphens."""
    if body and "Content_Length" not in headers:
        headers["Content_Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
