r"""The first bytes of a connection: a WebSocket handshake that arrived as a whole, or anything else.

    accepted --handshake--> WebSocketConnection
            \--else-------> HttpProtocol, which reads the same bytes again
            \--nothing in time, too many half open--> dropped

Most connections become a WebSocket at once. They are spared what uvicorn sets up for the requests of a
connection. All the time the connection is half open. The time limit of the head goes on with HTTP.

The mutable state is that of `FirstRequest`. Only its methods change it; asyncio and the node call them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import httptools

from tocsin_server.serving.address_limits import CONNECT_RATE_LIMIT, address_key, excess_limit
from tocsin_server.serving.head_deadlines import HeadDeadlines
from tocsin_server.serving.http_limits import HEADER_LIMIT
from tocsin_server.serving.websocket_upgrade import kinds_of, open_websocket
from tocsin_server.transports.websocket.opening import OpeningRequest
from tocsin_server.transports.websocket.raw import CLOSE_REPLY_SECONDS

if TYPE_CHECKING:
    from tocsin_server.node.node import Node
    from tocsin_server.serving.accepted_connection import AcceptedConnection
    from tocsin_server.serving.http_limits import HttpProtocol
    from tocsin_server.serving.proxy_header import Source
    from tocsin_server.serving.server import Server
    from tocsin_server.transports.websocket.raw import WebSocketConnection

HANDSHAKE_BYTES = 8192
"""A larger handshake is read as any other request."""


class FirstRequests:
    """Makes the protocol of each connection of a listening address."""

    def __init__(self, server: Server, make_http: Callable[[Source | None], HttpProtocol]) -> None:
        self.node: Node = server.node
        self.make_http = make_http
        self.connections: set[Any] = server.server_state.connections
        self.refused = server.refused
        self.kinds = kinds_of(self.node, server.config.root_path)
        self.beginnings = tuple(b"GET " + path for path in self.kinds)
        """How a handshake may begin."""
        self.deadlines = HeadDeadlines(self.node.settings.client.stale_timeout)
        """Of the connections whose head has not arrived."""

    def new(self, source: Source | None = None) -> FirstRequest:
        """The protocol of a connection, which comes from `source` if its proxy says so."""
        return FirstRequest(self, source)


class _Head:
    """What the parser reads of a request."""

    __slots__ = ("headers", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        """Take the target of the request line."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self.headers.append((name.lower(), value))


class FirstRequest(asyncio.Protocol):
    """One connection until its first bytes arrive."""

    __slots__ = ("_abort_timer", "_head_until", "_key", "_owner", "_peer", "_source", "accepted", "transport")

    def __init__(self, owner: FirstRequests, source: Source | None) -> None:
        self._owner = owner
        self._source = source
        self._key = ""
        self._peer = ""
        self.transport: asyncio.Transport
        self._head_until = 0.0
        self._abort_timer: asyncio.TimerHandle | None = None  # of a refused handshake
        self.accepted: AcceptedConnection | None = None
        """What the connection was before: with its TLS handshake or the header of its proxy."""

    # ------------------------------------------------------------------------------------ asyncio and uvicorn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time limit, and count the connection as half open, unless it is refused unread."""
        owner, node = self._owner, self._owner.node
        self.transport = cast("asyncio.Transport", transport)
        was_accepted = self.accepted is not None
        if self.accepted is not None:
            self.accepted.leave()
            self.accepted = None
        owner.connections.add(self)
        self._peer = self._source.address if self._source is not None else _peer_of(self.transport)
        self._key = address_key(node, self._peer)
        if not was_accepted and not node.admission.accepts(self._key, time.monotonic()):
            node.limit_reached(CONNECT_RATE_LIMIT, address=self._key)
            owner.refused.drop(self.transport)
        elif limit := excess_limit(node, owner.connections):
            self.drop_half_open(limit)
        else:
            self._head_until = owner.deadlines.add(self)
            node.half_open.add(self, self._key)

    def data_received(self, data: bytes) -> None:
        """Open a WebSocket, or go on with HTTP."""
        if self.transport.is_closing():
            return
        if len(data) > HANDSHAKE_BYTES or not data.startswith(self._owner.beginnings):
            self._continue_as_http(data)
            return
        head, parsed_bytes = _Head(), 0
        try:
            httptools.HttpRequestParser(head).feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            parsed_bytes = upgrade.args[0]
        except httptools.HttpParserError:
            pass  # HTTP says so
        path, _, query = head.url.partition(b"?")
        kind = self._owner.kinds.get(path)
        request = OpeningRequest(b"GET", query, head.headers[:HEADER_LIMIT])
        if (
            not parsed_bytes
            or kind is None
            or len(head.headers) > HEADER_LIMIT
            or not request.asks_for_websocket
        ):
            self._continue_as_http(data)
        else:
            self._open(kind, request, data[parsed_bytes:])

    def eof_received(self) -> None:
        """Let asyncio close the transport."""

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        """Count the connection no longer."""
        self.leave()

    def shutdown(self) -> None:
        """End the connection because the server stops. uvicorn calls it."""
        self.transport.close()

    def drop_half_open(self, limit: str) -> None:
        """Drop the connection because of a limit. No response can be written before its request is read."""
        self._owner.node.limit_reached(limit, address=self._key)
        self.transport.abort()

    def leave(self) -> None:
        """Count the connection no longer: it is lost, or another protocol counts it now."""
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None
        owner = self._owner
        owner.deadlines.remove(self)
        owner.connections.discard(self)
        owner.node.half_open.remove(self)

    # -------------------------------------------------------------------------------------- from step to step

    def _open(self, kind: type[WebSocketConnection], request: OpeningRequest, rest: bytes) -> None:
        owner, transport = self._owner, self.transport
        self.leave()
        connection = open_websocket(owner.node, kind, owner.connections, transport, request, self._peer)
        if connection is None:
            owner.connections.add(self)
            loop = asyncio.get_running_loop()
            self._abort_timer = loop.call_later(CLOSE_REPLY_SECONDS, transport.abort)
            return
        transport.set_protocol(connection)
        if rest:
            connection.data_received(rest)

    def _continue_as_http(self, data: bytes) -> None:
        http = self._owner.make_http(self._source)
        http.accepted = self
        http.head_until = self._head_until
        http.connection_made(self.transport)
        self.transport.set_protocol(http)
        if not self.transport.is_closing():
            http.data_received(data)

    def time_out(self) -> None:
        """Drop the connection because its head has not arrived in time."""
        self._owner.node.log_refusal("http_connection_dropped", reason="head_timeout", address=self._peer)
        self.transport.abort()


def _peer_of(transport: asyncio.Transport) -> str:
    """The address of the socket's other end; empty if it has none, as a unix socket."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""
