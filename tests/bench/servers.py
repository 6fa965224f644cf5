"""The contenders, each in a process of its own. Their subscribers run in another process.

python -m tests.bench.servers NAME COUNT    request PUBLICATIONS BURST, reply: CPU seconds
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import cast

import msgspec
import uvicorn
import uvloop
from msgspec import Raw
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.support.worker import requests
from tocsin_server.app import create_app
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ServerOptions
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.engine.broker import NewPublication
from tocsin_server.logging import configure_logging
from tocsin_server.protocol.messages import Publication, Push
from tocsin_server.serving.server import serving
from tocsin_server.transports.websocket.framing import RAW_FRAMING

PAYLOAD = Raw(b'"' + b"x" * 126 + b'"')
"""128 bytes."""

DOCUMENT = Raw(
    msgspec.json.encode(
        [
            {
                "id": n * 7919,
                "symbol": f"SYM{n * 31 % 97}",
                "bid": n * 17 % 1009 / 8,
                "at": 1_767_225_600 + n * 13,
            }
            for n in range(32)
        ]
    )
)
"""A table of 32 rows, as applications publish it: some 2 KiB."""

PUSH = ChannelMessage(Push("bench", pub=Publication(PAYLOAD, offset=12_345)), "abcdefgh")
DOCUMENT_PUSH = ChannelMessage(Push("bench", pub=Publication(DOCUMENT, offset=12_345)), "abcdefgh")
FRAME = RAW_FRAMING.pack("bench", [PUSH])
"""The bytes that Tocsin writes for one publication. The other contenders write the same."""

QUOTES = b",".join([b"12.5"] * 200)
DOCUMENTS = [Raw(b'{"symbol":"ABC","price":%d.25,"quotes":[%b]}' % (price, QUOTES)) for price in (100, 101)]
"""Two payloads of 1 KiB of which one is a small delta to the other."""


def frame_of_delta() -> bytes:
    """The bytes that Tocsin writes for one of these after the other."""
    one, other = (
        ChannelMessage(Push("bench", pub=Publication(document, offset=12_345)), "abcdefgh", may_be_delta=True)
        for document in DOCUMENTS
    )
    other.follow(one.follow(None))
    return RAW_FRAMING.pack("bench", [other.delta])


def padded_to(size: int) -> Raw:
    """A payload with which a publication without delta takes so many bytes."""
    empty = ChannelMessage(Push("bench", pub=Publication(Raw(b'""'), offset=12_345)), "abcdefgh")
    return Raw(b'"' + b"x" * (size - len(RAW_FRAMING.pack("bench", [empty]))) + b'"')


PAUSE_SECONDS = 0.02
"""Pause before each publication, in which the subscribers' process catches up and no buffer grows."""

Deliver = Callable[[int], Awaitable[None]]
"""Write a burst of publications to every subscriber. Returns when the transports have them."""

SETTINGS = Settings(
    server=ServerOptions(port=0),
    client=ClientOptions(insecure=True, ping_interval=3600),
    channels=ChannelOptions(
        history_size=100,
        history_ttl=300,
        force_recovery=True,
        allowed_delta_types=("fossil",),
        delta_publish=True,
    ),
)


FILES = 12_000
"""Ten thousand connections, and some more for other files."""


def raise_file_limit() -> None:
    """Allow as many sockets as the largest figure needs. Exits with a message if that is impossible."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < FILES:
        sys.exit(f"This needs {FILES:,} open files, and the hard limit is {hard:,} (ulimit -Hn).")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@asynccontextmanager
async def subscribed(kind: str, port: int, count: int, channels: int = 1) -> AsyncIterator[None]:
    """So many subscribers in a process of their own, all subscribed."""
    arguments = (kind, str(port), str(count), str(channels))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.subscribers", *arguments), stdin=-1, stdout=-1
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the {kind} subscribers did not get through")
        yield
    finally:
        process.stdin.close()
        await process.wait()


@asynccontextmanager
async def bare_transports(count: int, channels: int = 1) -> AsyncIterator[Deliver]:
    """Writes ready-made bytes to bare asyncio transports: the lower bound of all contenders.

    It takes as many turns of the loop as a node, which writes in the turn after a publish.
    """
    transports: list[asyncio.Transport] = []

    class ConnectionCollector(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(cast("asyncio.Transport", transport))

    server = await asyncio.get_running_loop().create_server(ConnectionCollector, "127.0.0.1", 0)

    async def deliver(burst: int) -> None:
        for _ in range(burst):
            await asyncio.sleep(0)
            for group in groups:
                for transport in group:
                    transport.write(FRAME)
            await flush_writes()

    async with subscribed("bare", server.sockets[0].getsockname()[1], count, channels):
        while len(transports) < count:
            await asyncio.sleep(0.01)
        groups = [transports[number::channels] for number in range(channels)]
        yield deliver
    server.close()


@asynccontextmanager
async def starlette(count: int) -> AsyncIterator[Deliver]:
    """A Starlette route that awaits `send_text` for each subscriber, as a first version would."""
    sockets: set[WebSocket] = set()
    text = FRAME[4:].decode()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        sockets.add(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            sockets.discard(websocket)

    app = Starlette(routes=[WebSocketRoute("/ws", endpoint)])
    config = uvicorn.Config(app, port=0, ws="websockets-sansio", log_level="error", ws_ping_interval=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)

    async def deliver(burst: int) -> None:
        for _ in range(burst):
            for websocket in list(sockets):
                await websocket.send_text(text)
            await flush_writes()

    async with subscribed("starlette", server.servers[0].sockets[0].getsockname()[1], count):
        while len(sockets) < count:
            await asyncio.sleep(0.01)
        yield deliver
    server.should_exit = True
    await task


@asynccontextmanager
async def tocsin(
    count: int,
    kind: str = "tocsin",
    payloads: Sequence[Raw] = (PAYLOAD,),
    settings: Settings = SETTINGS,
    channels: int = 1,
) -> AsyncIterator[Deliver]:
    """Tocsin, from the node's `publish` on. The HTTP request of a publication is not included.

    `kind` is that of the subscribers. The payloads are published in turn, each into every channel.
    """
    app = create_app(settings)
    node = app.state.node
    published = itertools.cycle(payloads)
    names = ["bench"] if channels == 1 else [f"bench{number}" for number in range(channels)]

    async def deliver(burst: int) -> None:
        for _ in range(burst):
            publication = NewPublication(next(published))
            for name in names:
                await node.operations.publish(name, publication)
        while not node.fan_out.is_idle:
            await asyncio.sleep(0)
        await flush_writes()

    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(app, settings.server))
        port = int(server.url.rsplit(":", 1)[1])
        await stack.enter_async_context(subscribed(kind, port, count, channels))
        assert sum(len(node.hub.channels[name]) for name in names) == count
        yield deliver


async def flush_writes() -> None:
    """Wait for two turns of the loop, in which uvloop writes its queues to the kernel."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def plain(count: int) -> AbstractAsyncContextManager[Deliver]:
    """A payload of some 2 KiB, not compressed."""
    return tocsin(count, payloads=[DOCUMENT])


def deflated(count: int) -> AbstractAsyncContextManager[Deliver]:
    """The same payload, compressed."""
    client = SETTINGS.client.model_copy(update={"compression": True})
    return tocsin(count, "deflated", [DOCUMENT], SETTINGS.model_copy(update={"client": client}))


def delta(count: int) -> AbstractAsyncContextManager[Deliver]:
    """Subscribers that use deltas, and documents that resemble each other."""
    return tocsin(count, "delta", DOCUMENTS)


def without_delta(count: int) -> AbstractAsyncContextManager[Deliver]:
    """The same bytes as publications without deltas."""
    return tocsin(count, payloads=[padded_to(len(frame_of_delta()))])


def http_stream(count: int) -> AbstractAsyncContextManager[Deliver]:
    """Tocsin, with subscribers over http_stream."""
    return tocsin(count, "http_stream")


CHANNELS = 10
"""Of the contenders with several channels. They publish into all of them at the same time."""

CONTENDERS: dict[str, Callable[[int], AbstractAsyncContextManager[Deliver]]] = {
    "bare": bare_transports,
    "bare_channels": partial(bare_transports, channels=CHANNELS),
    "starlette": starlette,
    "tocsin": tocsin,
    "tocsin_channels": partial(tocsin, channels=CHANNELS),
    "http_stream": http_stream,
    "plain": plain,
    "deflated": deflated,
    "protobuf": partial(tocsin, kind="protobuf"),
    "mixed": partial(tocsin, kind="mixed"),
    "delta": delta,
    "without_delta": without_delta,
}


async def main(name: str, count: int) -> None:
    """Deliver as requested."""
    raise_file_limit()
    async with CONTENDERS[name](count) as deliver:
        async for publications, burst in requests():
            print(await cpu_seconds(deliver, int(publications), int(burst)), flush=True)


async def cpu_seconds(deliver: Deliver, publications: int, burst: int) -> float:
    """The CPU seconds of this process for so many bursts."""
    seconds = 0.0
    for _ in range(publications):
        await asyncio.sleep(PAUSE_SECONDS)
        started = time.process_time()
        await deliver(burst)
        seconds += time.process_time() - started
    return seconds


if __name__ == "__main__":
    configure_logging("warning")
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
