"""A balancer in front of the nodes: a connection leads to one that is ready, or else to one that listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

Ports = Callable[[], Sequence[int]]
"""Where a new connection may lead, best first."""


async def _lead(ports: Ports, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for port in ports():
        with contextlib.suppress(OSError):
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", port)
            break
    else:
        writer.transport.abort()
        return
    try:
        await asyncio.gather(_copy(reader, upstream), _copy(upstream_reader, writer))
    finally:
        upstream.transport.abort()
        writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):  # the other side may be gone already
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def balancing(ports: Ports) -> AsyncIterator[str]:
    """Give the address that clients connect to."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_lead(ports, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, backlog=1000)
    try:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()
