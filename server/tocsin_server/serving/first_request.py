r"""The first bytes of a connection: those of a WebSocket handshake, or anything else.

    accepted --handshake--> an open WebSocketConnection
            \--else-------> HttpProtocol, which reads the same bytes again
            \--nothing in time, too many half open--> dropped

Most connections become a WebSocket at once. So each begins as one that is not open yet. It is spared what
uvicorn sets up for the requests of a connection, and its transport keeps its protocol. Thousands of
handshakes that arrive byte by byte cost little, too. All the time the connection is half open. The time limit
of the head goes on with HTTP.

The mutable state is that of `FirstRequest`. Only its methods change it; the connection calls them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httptools

from tocsin_server.equal_deadlines import EqualDeadlines
from tocsin_server.serving.address_limits import CONNECT_RATE_LIMIT, address_key, excess_limit
from tocsin_server.serving.http_limits import HEADER_LIMIT
from tocsin_server.serving.websocket_upgrade import kinds_of
from tocsin_server.transports.websocket.opening import OpeningRequest
from tocsin_server.transports.websocket.raw import WebSocketConnection

if TYPE_CHECKING:
    from tocsin_server.node.node import Node
    from tocsin_server.serving.accepted_connection import AcceptedConnection
    from tocsin_server.serving.http_limits import HttpProtocol
    from tocsin_server.serving.proxy_header import Source
    from tocsin_server.serving.server import Server

HANDSHAKE_BYTES = 8192
"""A larger handshake is read as any other request."""


class FirstRequests:
    """Makes the protocol of each connection of a listening address."""

    def __init__(
        self, server: Server, make_http: Callable[[Source | None, FirstRequest], HttpProtocol]
    ) -> None:
        self.node: Node = server.node
        self.make_http = make_http
        self.connections: set[Any] = server.server_state.connections
        self.refused = server.refused
        self.kinds = kinds_of(self.node, server.config.root_path)
        self.beginnings = tuple(b"GET " + path for path in self.kinds)
        """How a handshake may begin."""
        seconds = self.node.settings.client.stale_timeout
        self.deadlines: EqualDeadlines[FirstRequest] = EqualDeadlines(seconds, FirstRequest.time_out)
        """Of the connections whose head has not arrived."""

    def new(
        self, source: Source | None = None, accepted: AcceptedConnection | None = None
    ) -> WebSocketConnection:
        """The protocol of a connection, which comes from `source` if its proxy says so.

        `accepted` is what it was before: with its TLS handshake or the header of its proxy.
        """
        connection = WebSocketConnection(self.node, self.connections)
        connection.read_first_with(FirstRequest(self, source, accepted))
        return connection


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


class FirstRequest:
    """What a connection is until its first bytes have arrived."""

    __slots__ = (
        "_accepted",
        "_connection",
        "_head_until",
        "_key",
        "_owner",
        "_peer",
        "_received",
        "_source",
        "_transport",
    )

    def __init__(
        self,
        owner: FirstRequests,
        source: Source | None,
        accepted: AcceptedConnection | None,
    ) -> None:
        self._owner = owner
        self._connection: WebSocketConnection
        self._source = source
        self._accepted = accepted
        self._key = ""
        self._peer = ""
        self._received = b""
        """What has arrived of a head that may be that of a handshake."""
        self._transport: asyncio.Transport
        self._head_until = 0.0

    # ------------------------------------------------------------------------------- called by the connection

    def begin(self, connection: WebSocketConnection, transport: asyncio.Transport) -> None:
        """Start the time limit, and count the connection as half open, unless it is refused unread."""
        owner, node = self._owner, self._owner.node
        self._connection = connection  # not before: after a failed TLS handshake, nothing would end the cycle
        self._transport = transport
        was_accepted = self._accepted is not None
        if self._accepted is not None:
            self._accepted.leave()
            self._accepted = None
        self._peer = self._source.address if self._source is not None else _peer_of(transport)
        self._key = address_key(node, self._peer)
        if not was_accepted and not node.admission.accepts(self._key, time.monotonic()):
            node.limit_reached(CONNECT_RATE_LIMIT, address=self._key)
            owner.refused.drop(transport)
        elif limit := excess_limit(node, owner.connections):
            self.drop(limit)
        else:
            self._head_until = owner.deadlines.add(self)
            node.half_open.add(connection, self._key)

    def read(self, data: bytes) -> None:
        """Open a WebSocket, or go on with HTTP. A part of a head is kept until the rest has arrived."""
        if self._transport.is_closing():
            return
        if self._received:
            data = self._received + data
        if not self._may_be_handshake(data):
            self._continue_as_http(data)
            return
        if b"\n\r\n" not in data and b"\n\n" not in data:  # no empty line ends the head yet
            self._received = data
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
            return
        self._owner.deadlines.remove(self)
        connection = self._connection
        if not connection.answer(kind, request, self._peer):
            self._owner.node.half_open.remove(connection)
        elif rest := data[parsed_bytes:]:
            connection.data_received(rest)

    def drop(self, limit: str) -> None:
        """Drop the connection because of a limit. No response can be written before its request is read."""
        self._owner.node.limit_reached(limit, address=self._key)
        self._transport.abort()

    def leave(self) -> None:
        """Count the connection no longer: it is lost, or HTTP counts it now."""
        owner = self._owner
        owner.deadlines.remove(self)
        owner.connections.discard(self._connection)
        owner.node.half_open.remove(self._connection)

    # -------------------------------------------------------------------------------------- from step to step

    def _may_be_handshake(self, data: bytes) -> bool:
        """Whether a handshake may begin with these bytes. To continue as HTTP costs far more."""
        if len(data) > HANDSHAKE_BYTES:
            return False
        beginnings = self._owner.beginnings
        return data.startswith(beginnings) or any(beginning.startswith(data) for beginning in beginnings)

    def _continue_as_http(self, data: bytes) -> None:
        http = self._owner.make_http(self._source, self)
        http.head_until = self._head_until
        http.connection_made(self._transport)
        self._connection.read_first_with(None)
        self._transport.set_protocol(http)
        if not self._transport.is_closing():
            http.data_received(data)

    def time_out(self) -> None:
        """Drop the connection because its head has not arrived in time. Its deadline is removed already."""
        self._owner.node.log_refusal("http_connection_dropped", reason="head_timeout", address=self._peer)
        self._transport.abort()


def _peer_of(transport: asyncio.Transport) -> str:
    """The address of the socket's other end; empty if it has none, as a unix socket."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) else ""
