"""The contenders of requests: a node with its engine in memory, and bare servers that answer the same bytes.

python -m tests.bench.request_servers NAME PORT    request anything, reply: CPU seconds so far
python -m tests.bench.request_servers bare_redis PORT REDIS_PORT    the same
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import cast

import hiredis
import uvicorn
import uvloop
from msgspec import Raw
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from tests.support.configs import API_KEY
from tests.support.tcp import HOST
from tests.support.worker import requests
from tocsin_server.app import create_app
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ApiOptions
from tocsin_server.engine.redis import encoding
from tocsin_server.engine.redis.connections.connection import pack_command
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.redis.publish_call import (
    ChannelNames,
    PublishSettings,
    pack_publish,
)
from tocsin_server.engine.redis.scripts import PUBLISH
from tocsin_server.engine.redis.seen_positions import UNSEEN
from tocsin_server.logging import configure_logging
from tocsin_server.serving.server import collect_less, serving

PUBLISHED = b'{"result":{"offset":12345,"epoch":"abcdefgh"}}'
"""The body of a response to a publish request."""

HEADERS = [
    (b"content-length", b"%d" % len(PUBLISHED)),
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
]

CLIENT = b"00000000-0000-0000-0000-000000000000"
REPLY = b'{"id":1,"connect":{"client":"%b","version":"0.1.0","ping":25,"pong":true}}' % CLIENT
"""What the bare WebSocket server answers to each message: about the bytes of a connect reply."""


async def answer_publish(_scope: Scope, receive: Receive, send: Send) -> None:
    """Read a request, and answer it: an ASGI application that does nothing else."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": PUBLISHED})


class BareRedis(asyncio.Protocol):
    """A connection to Redis that sends the same command for each publish, and resolves its future."""

    def __init__(self) -> None:
        self._replies: deque[asyncio.Future[object]] = deque()
        self._parser = hiredis.Reader()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to send."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self, command: bytes) -> asyncio.Future[object]:
        """Send a command at once."""
        reply: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._replies.append(reply)
        self._transport.write(command)
        return reply

    def data_received(self, data: bytes) -> None:
        """Resolve the futures of the replies."""
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not False:
            self._replies.popleft().set_result(reply)

    async def publish(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request once Redis has stored and published: an ASGI application."""
        if isinstance(reply := await self.send(PUBLISH_COMMAND), Exception):
            raise reply
        await answer_publish(scope, receive, send)


def publish_command() -> bytes:
    """The command with which a node publishes 128 bytes into a channel with history."""
    body = encoding.encode_body(Raw(b'"%b"' % (b"x" * 126)), None, None)
    settings = PublishSettings("PUBLISH", encoding.PUBLICATION, 100, 300_000, 2_592_000_000)
    words = ChannelNames(Keys("bare"), lambda _options, _state: settings).of("bench")
    words.use_options(ChannelOptions())
    beginning = words.beginning((encoding.PUBLICATION, True, True, True))
    return pack_publish(beginning, body, b"1767225600000000", b"abcdefghijkl", UNSEEN)


PUBLISH_COMMAND = publish_command()


@contextlib.asynccontextmanager
async def bare_redis(port: int, redis_port: int) -> AsyncIterator[None]:
    """Serve an ASGI function that only publishes into Redis."""
    _, redis = await asyncio.get_running_loop().create_connection(BareRedis, HOST, redis_port)
    await redis.send(pack_command("SCRIPT", "LOAD", PUBLISH.text))
    async with bare_http(port, redis.publish):
        yield


@contextlib.asynccontextmanager
async def bare_http(port: int, app: ASGIApp = answer_publish) -> AsyncIterator[None]:
    """Serve an ASGI function with uvicorn and httptools."""
    config = uvicorn.Config(
        app,
        host=HOST,
        port=port,
        http="httptools",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    server = uvicorn.Server(config)
    serving_task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await serving_task


class BareWebSocket(asyncio.Protocol):
    """Accepts a WebSocket, and answers each text frame with one, with `websockets`' protocol alone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        self._transport = cast("asyncio.Transport", transport)
        self._protocol = ServerProtocol(max_size=65_536)

    def data_received(self, data: bytes) -> None:
        """Answer what has arrived."""
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                protocol.send_text(REPLY)
        for part in protocol.data_to_send():
            if part:
                self._transport.write(part)
            else:
                self._transport.close()

    def eof_received(self) -> None:
        """Note the end, so that the transport closes."""
        self._protocol.receive_eof()


@contextlib.asynccontextmanager
async def bare_websocket(port: int) -> AsyncIterator[None]:
    """Serve `BareWebSocket`."""
    server = await asyncio.get_running_loop().create_server(BareWebSocket, HOST, port)
    try:
        yield
    finally:
        server.close()


@contextlib.asynccontextmanager
async def memory_node(port: int) -> AsyncIterator[None]:
    """Serve a node whose channels have a history in memory."""
    settings = Settings(
        api=ApiOptions(keys=(API_KEY,)), channels=ChannelOptions(history_size=100, history_ttl=60)
    )
    async with serving(create_app(settings), settings.server.model_copy(update={"port": port})):
        yield


SERVERS: Mapping[str, Callable[..., AbstractAsyncContextManager[None]]] = {
    "bare_http": bare_http,
    "bare_redis": bare_redis,
    "bare_websocket": bare_websocket,
    "memory_node": memory_node,
}


async def main(name: str, *ports: int) -> None:
    """Serve, and tell the CPU seconds when requested."""
    async with SERVERS[name](*ports):
        async for _ in requests():
            print(time.process_time(), flush=True)


if __name__ == "__main__":
    configure_logging("warning")
    collect_less()  # as `tocsin serve` does
    uvloop.run(main(sys.argv[1], *map(int, sys.argv[2:])))
