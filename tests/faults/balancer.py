"""A balancer in front of the nodes: a connection leads to one that is ready, or else to one that listens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from tests.support.links import HOST, accepting, connecting, copy

Ports = Callable[[], Sequence[int]]
"""Where a new connection may lead, best first."""


@contextlib.asynccontextmanager
async def balancing(ports: Ports) -> AsyncIterator[str]:
    """Give the address that clients connect to."""

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for port in ports():
                with contextlib.suppress(OSError):
                    upstream_reader, upstream = await stack.enter_async_context(connecting(port))
                    break
            else:
                raise ConnectionRefusedError
            await asyncio.gather(copy(reader, upstream), copy(upstream_reader, writer))

    async with accepting(lead) as port:
        yield f"http://{HOST}:{port}"
