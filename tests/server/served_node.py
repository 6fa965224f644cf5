"""A node in this process, served on a port of its own, with clients for it."""

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

from tests.support.api import NO_TLS
from tests.support.configs import NAMESPACES, PERMIT_ALL
from tests.support.raw_connection import RawConnection, open_streams
from tests.support.timing import SOON
from tests.support.tokens import SECRET
from tests.support.wire_client import WireClient
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.memory.engine import MemoryEngine
from tocsin_server.hooks.registry import Hooks
from tocsin_server.node.node import Node
from tocsin_server.protocol.messages import Position
from tocsin_server.serving.server import Server, serving
from tocsin_server.transports.websocket.raw import WebSocketConnection

Json = dict[str, Any]
Sections = Mapping[str, Mapping[str, Any]]

SETTINGS: Json = {
    "client": {"allow_anonymous": True, "token_hmac_secret": SECRET},
    "api": {"insecure": True},
    "channels": PERMIT_ALL,
    "namespaces": {
        "log": {**PERMIT_ALL, "history_size": 1000, "history_ttl": "300s", "force_recovery": True},
        **NAMESPACES,
    },
}
"""Settings that permit much, with a namespace for each feature."""

_numbers = itertools.count()


def settings_of(sections: Sections) -> Settings:
    """The usual settings, in which `sections` add or replace keys."""
    names = {*SETTINGS, *sections}
    return Settings.model_validate(
        {name: {**SETTINGS.get(name, {}), **sections.get(name, {})} for name in names}
    )


def token_of(user: str, **claims: Any) -> str:
    """A connection token."""
    return jwt.encode({"sub": user, **claims}, SECRET, "HS256")


async def until(fact: Callable[[], object]) -> None:
    """Wait for a condition that no event signals, turn by turn of the loop."""
    async with asyncio.timeout(SOON):
        while not fact():  # noqa: ASYNC110 - no event signals it
            await asyncio.sleep(0)


def is_settled(node: Node) -> bool:
    """Whether a node has no task and no fan-out left."""
    return not _tasks_of(node) and node.fan_out.is_idle


def _tasks_of(node: Node) -> int:
    tasks = node._tasks
    in_group = 0 if tasks._group is None else len(tasks._group._tasks)
    return len(node._session_io.authorizations) + in_group + len(tasks._rpc_tasks._tasks)


async def publish(node: Node, channel: str, *data: bytes) -> Position:
    """Publish JSON values one after the other, and return the last position."""
    for value in data:
        position = await node.operations.publish(channel, NewPublication(Raw(value)))
    return position


def subscribed_channels(node: Node) -> set[str]:
    """The channels that the node is subscribed to at its engine."""
    assert isinstance(node.engine, MemoryEngine)
    return node.engine._broker._subscribed


def present_in(node: Node) -> dict[str, set[str]]:
    """The client ids in the presence store, by channel."""
    assert isinstance(node.engine, MemoryEngine)
    return {channel: set(members) for channel, members in node.engine._presence._channels.items()}


def assert_nothing_is_left(node: Node) -> None:
    """Assert that no part of the node holds a trace of a connection."""
    assert not node.state.connections
    assert not len(node.hub)
    assert not list(node.hub.users)
    assert not node.hub.channels
    assert not len(node._session_io._deadlines)
    assert not node._session_io._deadlines._owners
    assert is_settled(node)
    assert not node.fan_out._busy
    assert not len(node._session_io._slow_clients)
    assert not node._session_io._slow_clients._waiters
    assert not len(node._session_io._read_slots)
    assert not node._session_io._catch_ups._channels
    assert not subscribed_channels(node)
    assert not present_in(node)


@dataclass
class ServedNode:
    """A node that a server in this process serves."""

    node: Node
    server: Server

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def websocket_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/connection/websocket"

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def connection(self) -> WebSocketConnection:
        """The node's only connection."""
        (connection,) = self.node.state.connections
        assert isinstance(connection, WebSocketConnection)
        return connection

    @property
    def queued_bytes(self) -> int:
        """The bytes queued for all clients."""
        return sum(connection.queued_bytes for connection in self.node.state.connections)

    def http(self, **options: Any) -> httpx.AsyncClient:
        options = {"verify": NO_TLS, **options}
        return httpx.AsyncClient(base_url=self.url, timeout=SOON, trust_env=False, **options)

    @asynccontextmanager
    async def wire(self, query: str = "", **options: Any) -> AsyncIterator[WireClient]:
        """A WebSocket before its connect command."""
        quiet: Json = {"compression": None, "ping_interval": None, "proxy": None, "max_size": None}
        async with connect(self.websocket_url + query, **{**quiet, **options}) as connection:
            wire = WireClient(connection)
            reading = asyncio.create_task(wire.read())
            try:
                yield wire
            finally:
                await connection.close()
                await reading

    @asynccontextmanager
    async def connected(self, *channels: str, **params: Any) -> AsyncIterator[WireClient]:
        """A WebSocket after its connect command, subscribed to these channels."""
        async with self.wire() as wire:
            await wire.connect(**params)
            for channel in channels:
                await wire.call("subscribe", channel=channel)
            yield wire

    @asynccontextmanager
    async def tcp(self, receive_buffer: int = 0) -> AsyncIterator[tuple[RawConnection, asyncio.StreamWriter]]:
        """A TCP connection. With a small `receive_buffer` (bytes) it is soon full unless it is read."""
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await open_streams(receive_buffer or 2**16, sock=sock)
        try:
            yield RawConnection(reader, writer), writer
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def until_empty(self) -> None:
        """Wait until every connection is closed and every task done, then assert that no trace is left."""
        await until(
            lambda: (
                not self.node.state.connections
                and not self.node.hub.channels
                and not len(self.node._session_io._slow_clients)
                and is_settled(self.node)
            )
        )
        assert_nothing_is_left(self.node)


@asynccontextmanager
async def serve_node(
    *,
    engine: Engine | None = None,
    routes: Sequence[BaseRoute] = (),
    has_page: bool = False,
    rpc_methods: Mapping[str, Any] | None = None,
    add_hooks: Callable[[Hooks], object] | None = None,
    **sections: Mapping[str, Any],
) -> AsyncIterator[ServedNode]:
    """Serve a node with the usual settings, which `sections` change, and with hooks."""
    settings = settings_of(sections)
    app = create_app(settings, engine=engine, routes=routes, has_page=has_page, rpc_methods=rpc_methods)
    if add_hooks is not None:
        add_hooks(app.hooks)
    async with serving(app, settings.server.model_copy(update={"port": 0})) as server:
        yield ServedNode(app.state.node, server)


@asynccontextmanager
async def serve_node_over_tls(certificate: str, key: str, **sections: Any) -> AsyncIterator[ServedNode]:
    """Serve a node with the usual settings over TLS."""
    server = {**sections.pop("server", {}), "tls_certificate": certificate, "tls_key": key}
    async with serve_node(server=server, **sections) as served_node:
        yield served_node


def trusting(certificate: str) -> ssl.SSLContext:
    """A client's TLS context that trusts only this certificate."""
    return ssl.create_default_context(cafile=certificate)


def new_channel(namespace: str) -> str:
    """A name for a channel of a namespace that no other test uses."""
    return f"{namespace}:{next(_numbers)}"
