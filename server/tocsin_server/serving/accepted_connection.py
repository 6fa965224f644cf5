r"""Connections before HTTP: the header of the PROXY protocol, where it is configured, and the TLS handshake.

    accepted --> PROXY header --complete--> TLS handshake --> HTTP, with the address of the client
         \--another peer than a trusted proxy, invalid, too late, too many half open--> dropped

The header is read to its last byte and no further: what follows belongs to TLS or HTTP. All the time the
connection is half open. Without PROXY protocol and TLS, the first request is read at once.

The mutable state is that of `AcceptedConnection`, and the handshakes under way. Only methods of their classes
changes it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.utils import get_remote_addr

from tocsin_server.serving.address_limits import CONNECT_RATE_LIMIT, address_key, excess_limit
from tocsin_server.serving.http_limits import HttpProtocol
from tocsin_server.serving.proxy_header import LIMIT_BYTES, InvalidHeader, Source, missing_bytes, parse
from tocsin_server.transports.client_address import normalized

if TYPE_CHECKING:
    from tocsin_server.node.node import Node
    from tocsin_server.serving.refused_connections import RefusedConnections
    from tocsin_server.transports.client_address import TrustedProxies
    from tocsin_server.transports.websocket.raw import WebSocketConnection

PROXY_LIMIT = "server.proxy_protocol"

TLS_CLOSE_SECONDS = 5.0
"""How long the end of a TLS connection waits for the client's close_notify."""


class AcceptedConnections:
    """Makes the protocol of each connection that a listening address accepts."""

    def __init__(
        self,
        make_next: Callable[[Source | None, AcceptedConnection], WebSocketConnection | HttpProtocol],
        node: Node,
        connections: set[Any],
        refused: RefusedConnections,
        *,
        proxies: TrustedProxies | None,
        context: ssl.SSLContext | None,
        is_limited: bool,
    ) -> None:
        """Add connections to the server's own set, and count them as half open if they are limited."""
        self.make_next = make_next
        self.node = node
        self.connections = connections
        self.refused = refused
        self.proxies = proxies
        self.context = context
        self.is_limited = is_limited
        self.seconds = node.settings.client.stale_timeout
        """How long the header may take, and then the handshake."""

    def new_connection(self) -> asyncio.BaseProtocol:
        """The protocol of a connection that has just been accepted."""
        return AcceptedConnection(self)


class AcceptedConnection(asyncio.BufferedProtocol):
    """One connection until it is given to HTTP."""

    awaits_request = True
    """The server that stops waits a moment for its first request."""

    def __init__(self, owner: AcceptedConnections) -> None:
        self._owner = owner
        self._key = ""
        self._data = b""
        self._buffer = bytearray(LIMIT_BYTES) if owner.proxies is not None else bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------ asyncio and uvicorn

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse every peer but trusted proxies before anything is read, if the peer must be a proxy."""
        self._transport = cast("asyncio.Transport", transport)
        self._owner.connections.add(self)
        peer = (get_remote_addr(self._transport) or ("",))[0]
        loop = asyncio.get_running_loop()
        if self._owner.proxies is None:
            self._begin(None, peer)
        elif not self._owner.proxies.trust(normalized(peer)):
            self._drop("peer_not_trusted", peer=peer)
        else:
            self._count("")
            self._timer = loop.call_later(self._owner.seconds, self._drop, "header_timeout")

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Room for what certainly belongs to the header."""
        return memoryview(self._buffer)[: missing_bytes(self._data)]

    def buffer_updated(self, nbytes: int) -> None:
        """Take some bytes of the header, and go on once it is complete."""
        if self._transport.is_closing():
            return
        self._data += self._buffer[:nbytes]
        try:
            if missing_bytes(self._data):
                return
            source = parse(self._data)
        except InvalidHeader:
            self._drop("header_invalid")
            return
        self._stop_timer()
        self._transport.pause_reading()
        peer = source.address if source is not None else (get_remote_addr(self._transport) or ("",))[0]
        # The transport must not change its protocol in the middle of a read
        asyncio.get_running_loop().call_soon(self._begin, source, peer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        """Count the connection no longer, unless it goes on with a TLS handshake."""
        if self._handshake is None:
            self.leave()

    def shutdown(self) -> None:
        """End the connection because the server stops. uvicorn calls it."""
        self._end()

    def drop_half_open(self, limit: str) -> None:
        """End the connection because of a limit, without a response: nothing was read."""
        self._owner.node.limit_reached(limit, address=self._key)
        self._end()

    def leave(self) -> None:
        """Count the connection no longer: it is lost, or HTTP counts it now."""
        self._stop_timer()
        self._owner.connections.discard(self)
        self._owner.node.half_open.remove(self)

    # -------------------------------------------------------------------------------------- from step to step

    def _begin(self, source: Source | None, peer: str) -> None:
        """Go on with the client that is known now. Nothing further is read from the transport before that."""
        if self._transport.is_closing():
            return
        self._key = address_key(self._owner.node, peer)
        if not self._count(self._key):
            return
        if self._owner.context is not None:
            self._start_handshake(source, self._owner.context)
            return
        following = self._make_next(source)
        following.connection_made(self._transport)
        self._transport.set_protocol(following)
        self._transport.resume_reading()

    def _count(self, key: str) -> bool:
        """Count the connection as half open. False: it is dropped because of a limit."""
        if not self._owner.is_limited:
            return True
        node = self._owner.node
        if key and not node.admission.accepts(key, time.monotonic()):
            node.limit_reached(CONNECT_RATE_LIMIT, address=key)
            self._stop_timer()
            self._owner.refused.drop(self._transport)
            return False
        if limit := excess_limit(node, self._owner.connections):
            self.drop_half_open(limit)
            return False
        node.half_open.add(self, key)
        return True

    def _start_handshake(self, source: Source | None, context: ssl.SSLContext) -> None:
        """Give the socket to a TLS transport. `start_tls` would miss what uvloop may have read already."""
        sock = socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))
        self._handshake = asyncio.create_task(self._shake_hands(sock, source, context))
        self._transport.abort()  # closes its own descriptor, and not the connection

    async def _shake_hands(self, sock: socket.socket, source: Source | None, context: ssl.SSLContext) -> None:
        following = self._make_next(source)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: following,
                sock,
                ssl=context,
                ssl_handshake_timeout=self._owner.seconds,
                ssl_shutdown_timeout=TLS_CLOSE_SECONDS,
            )
        except OSError:
            pass  # the handshake failed or took too long
        finally:
            if isinstance(following, HttpProtocol):
                following.release_unopened()
            self.leave()

    def _make_next(self, source: Source | None) -> WebSocketConnection | HttpProtocol:
        return self._owner.make_next(source, self)

    def _drop(self, reason: str, **fields: Any) -> None:
        self._owner.node.limit_reached(PROXY_LIMIT, reason=reason, **fields)
        self._end()

    def _end(self) -> None:
        if self._handshake is not None:
            self._handshake.cancel()
        self._transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
