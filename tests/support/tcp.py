"""TCP links: what every proxy of the tests is made of."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

HOST = "127.0.0.1"

ConnectionHandler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one accepted connection, which is closed once this returns, and aborted if it fails with OSError."""


@contextlib.asynccontextmanager
async def tcp_server(lead: ConnectionHandler) -> AsyncIterator[int]:
    """Listen, and give the port. When this ends, neither tasks nor sockets are left."""
    links: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_serve(lead, reader, writer))
        links[task] = writer
        task.add_done_callback(links.pop)

    listener = await asyncio.start_server(accept, HOST, 0, backlog=1000)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        for task, writer in links.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        await listener.wait_closed()


async def _serve(lead: ConnectionHandler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        try:
            await lead(reader, writer)
            writer.close()
        except BaseException:
            writer.transport.abort()
            raise
        finally:
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def tcp_connection(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a port, gone at the end."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass everything on, then the end. Either side may be gone already."""
    with contextlib.suppress(OSError, RuntimeError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
