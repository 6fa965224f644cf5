"""A TCP link that can swallow: it stays open, and nothing comes through."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.proxies import accepting, connecting


class ProxiedConnection:
    """One connection through it."""

    def __init__(self) -> None:
        self.is_pubsub = False
        self.is_swallowed = False


class BlackholeProxy:
    """`port` leads to a server. `segments` counts what clients sent."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._ways: set[ProxiedConnection] = set()
        self._swallows_all = False
        self._swallows_subscribers = False
        self.port = 0
        self.segments = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def drop_pubsub(self) -> None:
        """Nothing comes through the present connections that hear announcements; new ones work."""
        for way in self._ways:
            way.is_swallowed = way.is_pubsub

    def drop_all(self) -> None:
        """From now on nothing comes through any connection, those that are still to be made included."""
        self._swallows_all = True
        for way in self._ways:
            way.is_swallowed = True

    def drop_subscribers(self) -> None:
        """From now on nothing comes through a connection that begins to hear announcements."""
        self._swallows_subscribers = True

    def pass_all(self) -> None:
        """Connections made from now on work."""
        self._swallows_all = self._swallows_subscribers = False

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        way = ProxiedConnection()
        way.is_swallowed = self._swallows_all
        self._ways.add(way)
        try:
            async with connecting(self._target) as (there_reader, there):
                await asyncio.gather(
                    self._copy(way, reader, there, is_upwards=True),
                    self._copy(way, there_reader, writer, is_upwards=False),
                )
        finally:
            self._ways.discard(way)

    async def _copy(
        self,
        way: ProxiedConnection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_upwards: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if is_upwards:
                    self.segments += 1
                    begins = not way.is_pubsub and b"SUBSCRIBE\r\n" in data
                    way.is_pubsub |= begins
                    way.is_swallowed |= begins and self._swallows_subscribers
                if not way.is_swallowed:
                    writer.write(data)
                    await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def blackhole_running(target: int) -> AsyncIterator[BlackholeProxy]:
    swallower = BlackholeProxy(target)
    async with accepting(swallower.lead) as swallower.port:
        yield swallower
