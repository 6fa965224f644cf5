"""A process whose clients return all at once: each connects with a token, and recovers three channels.

    python -m tests.bench.returning_clients KIND PORT FIRST COUNT EPOCH

KIND is `tocsin` or `bare`. A request of 1 lets the clients from number FIRST on connect; the reply follows
when each has all its replies. A request of 0 lets them leave; the reply follows when all are gone.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from tests.bench import servers
from tests.support.raw_connection import HANDSHAKE, commands
from tests.support.tcp import HOST
from tests.support.tokens import connection_token
from tests.support.worker import requests

MEMBERS = 25
"""Clients in a room. A client joins its room, the news, and a channel of its own."""

PUBLICATIONS = 5
"""Publications in each channel."""

SEEN = 2
"""How many of these a client has seen. It recovers the others."""

OPENING_AT_ONCE = 500
"""Connections that a process opens at once: the kernel keeps more from waiting for the node's `accept`."""


def channels_of(number: int) -> list[str]:
    """The channels of a client."""
    return [f"user:{number}", f"room:{number // MEMBERS}", "news:all"]


class ReturningClient(asyncio.Protocol):
    """Connects, subscribes once it has the connect reply, and then reads. The last reply sets `ready`."""

    def __init__(self, number: int, epoch: str, replies: bytes, count: int) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self._received = b""
        self._replies, self._count = replies, count
        connect = {"id": 1, "connect": {"token": connection_token(f"user{number}")}}
        since = {"recover": True, "offset": SEEN, "epoch": epoch}
        subscribes = [
            {"id": index, "subscribe": {"channel": name, **since}}
            for index, name in enumerate(channels_of(number), 2)
        ]
        self._unsent = [HANDSHAKE, commands(connect), commands(*subscribes)]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the handshake."""
        self.transport = cast("asyncio.Transport", transport)
        self._send_next()

    def _send_next(self) -> None:
        self._received = b""
        self.transport.write(self._unsent.pop(0))

    def data_received(self, data: bytes) -> None:
        """Send what follows a response or a reply."""
        if self.ready.done():
            return
        self._received += data
        if b'"error"' in self._received:
            self.ready.set_exception(RuntimeError(f"the server refused a command: {self._received!r}"))
        elif len(self._unsent) == 2:
            if self._received.endswith(b"\r\n\r\n"):
                self._send_next()
        elif len(self._unsent) == 1:
            if b'"connect"' in self._received:
                self._send_next()
        elif self._received.count(self._replies) == self._count:
            self._received = b""
            self.ready.set_result(None)

    def connection_lost(self, _error: Exception | None) -> None:
        """Note the end."""
        self.gone.set_result(None)
        if not self.ready.done():
            self.ready.set_exception(RuntimeError("the server closed a connection"))


async def main(kind: str, port: int, first: int, count: int, epoch: str) -> None:
    """Connect and leave as requested."""
    servers.raise_file_limit()
    loop = asyncio.get_running_loop()
    expected = (b'"connect"', 1) if kind == "bare" else (b'"recovered":true', len(channels_of(0)))
    opening = asyncio.Semaphore(OPENING_AT_ONCE)

    async def open_one(client: ReturningClient) -> None:
        async with opening:
            await loop.create_connection(lambda: client, HOST, port)
        await client.ready

    def made() -> list[ReturningClient]:
        return [ReturningClient(number, epoch, *expected) for number in range(first, first + count)]

    clients, next_clients = [], made()
    async for (connects,) in requests():
        if connects:
            clients = next_clients
            await asyncio.gather(*map(open_one, clients))
        else:
            for client in clients:
                client.transport.close()
            await asyncio.gather(*(client.gone for client in clients))
            next_clients = made()
        print(0, flush=True)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]))
