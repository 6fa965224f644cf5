"""A TCP link between a client and a server that a test can cut and mend, to make any client lose its way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.proxies import accepting, connecting, copy
from tests.support.server import Server


class Proxy:
    """While cut, the connections there were are aborted and new ones die at once, unanswered."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._links: set[asyncio.StreamWriter] = set()
        self._is_cut = False
        self.port = 0
        self.attempts = 0
        self._attempted = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/connection/websocket"

    def events_url(self, *channels: str, **query: str) -> str:
        return self._server.events_url(*channels, **query).replace(self._server.url, self.url)

    def cut(self) -> None:
        self._is_cut = True
        for writer in self._links:
            writer.transport.abort()

    def mend(self) -> None:
        self._is_cut = False

    def lead_to(self, server: Server) -> None:
        """Connections made from now on reach this server."""
        self._server = server

    async def attempted(self) -> None:
        """Until a client has tried to come back; from then on it is known to be away."""
        self._attempted.clear()
        await self._attempted.wait()

    async def link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.attempts += 1
        self._attempted.set()
        if self._is_cut:
            writer.transport.abort()
            return
        async with connecting(self._server.port) as (upstream_reader, upstream_writer):
            self._links |= {writer, upstream_writer}
            try:
                await asyncio.gather(copy(reader, upstream_writer), copy(upstream_reader, writer))
            finally:
                self._links -= {writer, upstream_writer}


@contextlib.asynccontextmanager
async def proxying(server: Server) -> AsyncIterator[Proxy]:
    proxy = Proxy(server)
    async with accepting(proxy.link) as proxy.port:
        yield proxy
