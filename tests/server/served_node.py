"""A node in this process, served on a port of its own, and ways to reach it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
from msgspec import Raw
from starlette.routing import BaseRoute
from websockets.asyncio.client import connect

from tests.support.configs import NAMESPACES, PERMIT
from tests.support.raw import RawConnection
from tests.support.timing import SOON
from tests.support.tokens import SECRET
from tests.support.wire import Wire
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ServerOptions
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.node.node import Node
from tocsin_server.protocol.messages import Position
from tocsin_server.serving.server import Server, listen, serving
from tocsin_server.transports.websocket.raw import WebSocketConnection

Json = dict[str, Any]
Sections = Mapping[str, Mapping[str, Any]]

SETTINGS: Json = {
    "client": {"allow_anonymous": True, "token_hmac_secret": SECRET},
    "api": {"insecure": True},
    "channels": PERMIT,
    "namespaces": {
        "log": {**PERMIT, "history_size": 1000, "history_ttl": "300s", "force_recovery": True},
        **NAMESPACES,
    },
}
"""Generous, with a namespace for each thing to be shown."""

_numbers = itertools.count()


def settings_of(sections: Sections) -> Settings:
    """The usual settings, where `sections` add to them or replace them."""
    names = {*SETTINGS, *sections}
    return Settings.model_validate(
        {name: {**SETTINGS.get(name, {}), **sections.get(name, {})} for name in names}
    )


def token_of(user: str, **claims: Any) -> str:
    """A connection token."""
    return jwt.encode({"sub": user, **claims}, SECRET, "HS256")


async def until(fact: Callable[[], object]) -> None:
    """Wait for something that nobody announces, turn by turn of the loop."""
    async with asyncio.timeout(SOON):
        while not fact():  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0)


def is_settled(node: Node) -> bool:
    """Whether a node has done everything it was asked for."""
    return not _tasks_of(node) and node.fan_out.is_idle


def _tasks_of(node: Node) -> int:
    return 0 if node._tasks is None else len(node._tasks._tasks)


async def publish(node: Node, channel: str, *data: bytes) -> Position:
    """Publish JSON values, one after the other; the position of the last."""
    for value in data:
        position = await node.publish(channel, NewPublication(Raw(value)))
    return position


def listening_of(node: Node) -> set[str]:
    """The channels that the node's engine listens to."""
    assert isinstance(node.engine, MemoryEngine)
    return node.engine._broker._subscribed


def present_in(node: Node) -> dict[str, set[str]]:
    """The clients that are present, by channel."""
    assert isinstance(node.engine, MemoryEngine)
    return {channel: set(members) for channel, members in node.engine._presence._channels.items()}


def assert_nothing_is_left(node: Node) -> None:
    """No trace of any connection, in any of the places that know of connections."""
    assert not node._connections
    assert not len(node.hub)
    assert not list(node.hub.users)
    assert not node.hub.channels
    assert not len(node._deadlines)
    assert not node._deadlines._owners
    assert is_settled(node)
    assert not node.fan_out._busy
    assert not listening_of(node)
    assert not present_in(node)


@dataclass
class House:
    """A served node."""

    node: Node
    server: Server
    is_secret: bool = False

    @property
    def url(self) -> str:
        return self.server.url.replace("http:", "https:") if self.is_secret else self.server.url

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/connection/websocket"

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def peer(self) -> WebSocketConnection:
        """The only peer."""
        (peer,) = self.node._connections
        assert isinstance(peer, WebSocketConnection)
        return peer

    def http(self, **options: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.url, timeout=SOON, trust_env=False, **options)

    @asynccontextmanager
    async def wire(self, query: str = "", **options: Any) -> AsyncIterator[Wire]:
        """A WebSocket on which nothing has been said yet."""
        quiet: Json = {"compression": None, "ping_interval": None, "proxy": None, "max_size": None}
        async with connect(self.websocket_url + query, **{**quiet, **options}) as connection:
            wire = Wire(connection)
            reading = asyncio.create_task(wire.read())
            try:
                yield wire
            finally:
                await connection.close()
                await reading

    @asynccontextmanager
    async def connected(self, *channels: str, **params: Any) -> AsyncIterator[Wire]:
        """A WebSocket whose connect command was answered, subscribed to these channels."""
        async with self.wire() as wire:
            await wire.connect(**params)
            for channel in channels:
                await wire.call("subscribe", channel=channel)
            yield wire

    @asynccontextmanager
    async def tcp(self, receive_buffer: int = 0) -> AsyncIterator[tuple[RawConnection, asyncio.StreamWriter]]:
        """A bare connection; with a small `receive_buffer` (bytes) it is soon full if it is not read."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 2**16)
        try:
            yield RawConnection(reader, writer), writer
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def empty(self) -> None:
        """Wait until every connection is gone and everything done, then look for what is left."""
        await until(
            lambda: not self.node._connections and not self.node.hub.channels and is_settled(self.node)
        )
        assert_nothing_is_left(self.node)


@asynccontextmanager
async def housed(
    *,
    engine: Engine | None = None,
    routes: Sequence[BaseRoute] = (),
    has_page: bool = False,
    rpc_methods: Mapping[str, Any] | None = None,
    **sections: Mapping[str, Any],
) -> AsyncIterator[House]:
    """Serve a node with the usual settings, changed by `sections`."""
    settings = settings_of(sections)
    app = create_app(settings, engine=engine, routes=routes, has_page=has_page, rpc_methods=rpc_methods)
    async with serving(app, ServerOptions(port=0)) as server:
        yield House(app.state.node, server)


@asynccontextmanager
async def housed_secretly(certificate: str, key: str) -> AsyncIterator[House]:
    """The same over TLS, as a host application would configure it."""
    app = create_app(settings_of({}))
    options, listening = ServerOptions(port=0), asyncio.Event()
    server = Server(app, options, on_ready=lambda _url: listening.set())
    server.handles_signals = False
    server.config.ssl_certfile, server.config.ssl_keyfile = certificate, key
    task = asyncio.create_task(server.serve(listen(options)))
    try:
        async with asyncio.timeout(SOON):
            await listening.wait()
        yield House(app.state.node, server, is_secret=True)
    finally:
        server.should_exit = True
        await task


def trusting(certificate: str) -> ssl.SSLContext:
    """A client's context that believes this certificate alone."""
    return ssl.create_default_context(cafile=certificate)


def new_channel(namespace: str) -> str:
    """The name of a channel of a namespace that no other test uses."""
    return f"{namespace}:{next(_numbers)}"
