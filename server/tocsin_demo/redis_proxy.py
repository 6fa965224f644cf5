"""A TCP proxy between one node and Redis, which can silently drop what Redis publishes.

    node --connection--> RedisProxy --> Redis

A node has a pipeline and a pub/sub connection; the proxy recognizes the latter by its SUBSCRIBE command.
Dropped bytes leave a hole in the stream, so `restore` aborts the connections that have one.
"""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

from tocsin_demo.settings import HOST

READ_BYTES = 65_536
_SUBSCRIBE = (
    b"\r\nSUBSCRIBE\r\n"  # as RESP writes the command; JSON escapes line ends, so no payload contains it
)


class ProxiedConnection:
    """One connection through the proxy, with a writer at each end."""

    def __init__(self, *writers: StreamWriter) -> None:
        self._writers = writers
        self._tail = b""
        self.is_pubsub = False
        self.has_hole = False

    def inspect(self, data: bytes) -> None:
        """Search the bytes that the node sent for a SUBSCRIBE command, across the limits of segments."""
        seen = self._tail + data
        self.is_pubsub = self.is_pubsub or _SUBSCRIBE in seen
        self._tail = seen[-len(_SUBSCRIBE) :]

    def abort(self) -> None:
        """Close both ends at once."""
        for writer in self._writers:
            writer.transport.abort()


class RedisProxy:
    """Forwards connections from `port` to Redis at `target_port`.

    The mutable state is the set of connections and two flags; only the methods of this class change them.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._connections: set[ProxiedConnection] = set()
        self._is_closed = False
        self._is_dropping = False
        self.port = 0

    def drop_pubsub(self) -> None:
        """Drop everything that Redis sends on pub/sub connections, existing and new ones, until `restore`."""
        self._is_dropping = True

    def restore(self) -> None:
        """Forward everything again, and abort the connections on which bytes were dropped."""
        self._is_dropping = False
        for connection in self._connections:
            if connection.has_hole:
                connection.abort()

    def close(self) -> None:
        """Abort all connections, including those that `serve` is just opening."""
        self._is_closed = True
        for connection in self._connections:
            connection.abort()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward an accepted connection in both directions until either side closes it."""
        try:
            redis_reader, redis_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            writer.transport.abort()
            return None
        connection = ProxiedConnection(writer, redis_writer)
        if self._is_closed:
            return connection.abort()
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(connection, reader, redis_writer, is_from_node=True))
                tasks.create_task(self._forward(connection, redis_reader, writer, is_from_node=False))
        finally:
            self._connections.discard(connection)
            connection.abort()
        return None

    async def _forward(
        self, connection: ProxiedConnection, reader: StreamReader, writer: StreamWriter, *, is_from_node: bool
    ) -> None:
        """Read no faster than the receiver accepts."""
        with contextlib.suppress(OSError):
            while data := await reader.read(READ_BYTES):
                if is_from_node:
                    connection.inspect(data)
                elif self._is_dropping and connection.is_pubsub:
                    connection.has_hole = True
                    continue
                writer.write(data)
                await writer.drain()
        connection.abort()  # ends the other direction too: Redis does not use half-closed connections


@contextlib.asynccontextmanager
async def redis_proxy(target_port: int) -> AsyncIterator[RedisProxy]:
    """Run a proxy to Redis at this port. On exit, all its connections and tasks have ended."""
    proxy = RedisProxy(target_port)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, HOST, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.close()
        await asyncio.gather(*tasks)
