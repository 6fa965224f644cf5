"""Servers that send raw bytes: a script for each connection, over real sockets."""

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha1

from tests.support.timing import SOON

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


class HostileServer:
    """`url` is its address. `requests` holds the head of each request."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []
        self._changed = asyncio.Condition()

    async def requested(self, count: int) -> None:
        """Wait for so many requests."""
        async with asyncio.timeout(SOON), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)

    async def read_request(self, reader: asyncio.StreamReader) -> str:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        async with self._changed:
            self._changed.notify_all()
        return head


@contextlib.asynccontextmanager
async def hostile_server(script: Script, *, accepts_websockets: bool = True) -> AsyncIterator[HostileServer]:
    """A server that reads the head of a request, then runs the script, and closes the connection."""
    served = HostileServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = await served.read_request(reader)
            if accepts_websockets and "Upgrade: websocket" in head:
                writer.write(switching_protocols(head))
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test is over
        finally:
            tasks.discard(task)
            writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield served
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def switching_protocols(head: str) -> bytes:
    """The response that opens a WebSocket."""
    key = next(
        line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key")
    )
    accept = b64encode(sha1(f"{key}{_GUID}".encode()).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


def text_frame(text: str) -> bytes:
    """One WebSocket message from server to client."""
    payload = text.encode()
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    return bytes((0x81, 127)) + size.to_bytes(8, "big") + payload


def answers(head: str, *pieces: bytes) -> Script:
    """A script that sends a head, then pieces of the body, and leaves the connection open."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        await asyncio.Event().wait()

    return script


def repeats(head: str, piece: bytes, pause: float = 0.0) -> Script:
    """A script that sends a head, then a piece of the body again and again until the client leaves."""

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head.replace("\n", "\r\n").encode())
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return script
