"""A proxy to Redis that counts what passes."""

import asyncio

from tests.support.tcp import tcp_connection


class ByteCounter:
    """Forwards connections, and counts the bytes of both directions.

    It also counts how often `marker` comes from Redis, such as the payload of a publication.
    """

    def __init__(self, target: int, marker: bytes = b"") -> None:
        self._target = target
        self._marker = marker
        self.bytes = 0
        self.marked = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection."""
        async with tcp_connection(self._target) as (upstream_reader, upstream):
            await asyncio.gather(
                self._copy(reader, upstream), self._copy(upstream_reader, writer, self._marker)
            )

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, marker: bytes = b""
    ) -> None:
        end = b""
        while data := await reader.read(65536):
            self.bytes += len(data)
            if marker:
                self.marked += (end + data).count(marker)
                end = (end + data)[len(end + data) - len(marker) + 1 :]
            writer.write(data)
            await writer.drain()
        writer.close()
