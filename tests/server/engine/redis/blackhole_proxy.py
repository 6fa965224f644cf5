"""A blackhole proxy: a TCP proxy whose connections stay open while it drops all their bytes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator
from typing import Self

from tests.support.tcp import tcp_connection, tcp_server

_SUBSCRIBE = re.compile(rb"\nS?SUBSCRIBE\r\n")  # a node also tries UNSUBSCRIBE on other connections


class ProxiedConnection:
    """One connection through the proxy."""

    def __init__(self) -> None:
        self.is_pubsub = False
        self.is_dropping = False


class BlackholeProxy:
    """Forwards `port` to a server. `segments` counts the segments of clients that have `counted`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._connections: set[ProxiedConnection] = set()
        self._drops_all = False
        self._drops_subscribers = False
        self.port = 0
        self.counted = b""
        self.segments = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def drop_pubsub(self) -> None:
        """Drop the bytes of the current pub/sub connections. New connections work."""
        for connection in self._connections:
            connection.is_dropping = connection.is_pubsub

    def drop_all(self) -> None:
        """Drop the bytes of all connections, new ones included."""
        self._drops_all = True
        for connection in self._connections:
            connection.is_dropping = True

    def drop_subscribers(self) -> None:
        """Drop the bytes of every connection that subscribes from now on."""
        self._drops_subscribers = True

    def pass_all(self) -> None:
        """Let new connections work. Connections that are dropping bytes continue to do so."""
        self._drops_all = self._drops_subscribers = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = ProxiedConnection()
        connection.is_dropping = self._drops_all
        self._connections.add(connection)
        try:
            async with tcp_connection(self._target) as (server_reader, server_writer):
                await asyncio.gather(
                    self._copy(connection, reader, server_writer, is_upwards=True),
                    self._copy(connection, server_reader, writer, is_upwards=False),
                )
        finally:
            self._connections.discard(connection)

    async def _copy(
        self,
        connection: ProxiedConnection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_upwards: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if is_upwards:
                    self.segments += self.counted in data
                    subscribes = not connection.is_pubsub and _SUBSCRIBE.search(data) is not None
                    connection.is_pubsub |= subscribes
                    connection.is_dropping |= subscribes and self._drops_subscribers
                if not connection.is_dropping:
                    writer.write(data)
                    await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def blackhole_running(target: int) -> AsyncIterator[BlackholeProxy]:
    proxy = BlackholeProxy(target)
    async with tcp_server(proxy.serve) as proxy.port:
        yield proxy


class ProxyProcess:
    """A blackhole proxy in a process of its own, so that a busy test does not slow it down."""

    def __init__(self, target: int) -> None:
        self._command = [sys.executable, "-m", "tests.server.engine.redis.blackhole_proxy", str(target)]
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        self.port = int(await self._process.stdout.readline())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def drop_pubsub(self) -> None:
        """Drop the bytes of the current pub/sub connections. New connections work."""
        self._tell("drop_pubsub")

    def drop_all(self) -> None:
        """Drop the bytes of all connections, new ones included."""
        self._tell("drop_all")

    def pass_all(self) -> None:
        """Let new connections work. Connections that are dropping bytes continue to do so."""
        self._tell("pass_all")

    def _tell(self, method: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{method}\n".encode())


async def _serve_commands(target: int) -> None:
    """Run a proxy. Each line of standard input is a method to call; it ends with the input."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with blackhole_running(target) as proxy:
        sys.stdout.write(f"{proxy.port}\n")
        sys.stdout.flush()
        while method := (await lines.readline()).decode().strip():
            getattr(proxy, method)()


if __name__ == "__main__":
    asyncio.run(_serve_commands(int(sys.argv[1])))
