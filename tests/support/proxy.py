"""A proxy between clients and a server that a test can cut and restore."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.server import Server
from tests.support.tcp import forward, tcp_connection, tcp_server


class Proxy:
    """While it is cut, its connections are aborted, and new ones are aborted at once.

    The mutable state is the target server, whether it is cut, and the open connections.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connections: set[asyncio.StreamWriter] = set()
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
        """Abort all connections, and every new one until `restore`."""
        self._is_cut = True
        for writer in self._connections:
            writer.transport.abort()

    def restore(self) -> None:
        """Accept connections again."""
        self._is_cut = False

    def forward_to(self, server: Server) -> None:
        """Forward new connections to this server."""
        self._server = server

    async def wait_for_attempt(self) -> None:
        """Wait for the next connection attempt: it proves that the client has lost its connection."""
        self._attempted.clear()
        await self._attempted.wait()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        self.attempts += 1
        self._attempted.set()
        if self._is_cut:
            writer.transport.abort()
            return
        self._connections.add(writer)
        try:
            async with tcp_connection(self._server.port) as (upstream_reader, upstream_writer):
                self._connections.add(upstream_writer)
                try:
                    await asyncio.gather(forward(reader, upstream_writer), forward(upstream_reader, writer))
                finally:
                    self._connections.discard(upstream_writer)
        finally:
            self._connections.discard(writer)


@contextlib.asynccontextmanager
async def run_proxy(server: Server) -> AsyncIterator[Proxy]:
    """A proxy in front of a server, on a port of its own."""
    proxy = Proxy(server)
    async with tcp_server(proxy.handle) as proxy.port:
        yield proxy
