r"""Connections that begin with a header of the PROXY protocol, from trusted proxies alone.

    reading the header --complete--> TLS handshake, if TLS is served --> HTTP, with the client's address
         \--another peer, invalid, too late--> dropped

The header is read to its last byte and no further: what follows belongs to TLS or HTTP. The mutable state is
the header's bytes, and the tasks of handshakes. Only the methods of their classes change them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import structlog
from uvicorn.protocols.utils import get_remote_addr

from tocsin_server.serving.proxy_header import LIMIT_BYTES, InvalidHeader, Source, missing_bytes, parse
from tocsin_server.transports.client_address import normalized

if TYPE_CHECKING:
    from tocsin_server.node.connection import Connections
    from tocsin_server.serving.http_limits import HttpProtocol
    from tocsin_server.transports.client_address import TrustedProxies

log = structlog.get_logger()


class ProxiedConnections:
    """Makes the protocol of each accepted connection, and owns the handshakes that are under way."""

    def __init__(
        self,
        make_http: Callable[[Source | None], HttpProtocol],
        connections: Connections,
        trusted: TrustedProxies,
        seconds: float,
        context: ssl.SSLContext | None,
    ) -> None:
        self.make_http = make_http
        self.connections = connections
        self.trusted = trusted
        self.seconds = seconds
        """How long the header may take, and then the TLS handshake."""
        self._context = context
        self._handshakes: set[asyncio.Task[None]] = set()

    def new_connection(self) -> asyncio.BaseProtocol:
        """The protocol of a connection that has just been accepted."""
        return _HeaderReader(self)

    def begin(self, transport: asyncio.Transport, source: Source | None) -> None:
        """Go on with a connection whose header is complete. Its transport is paused."""
        if self._context is None:
            http = self.make_http(source)
            http.connection_made(transport)
            transport.set_protocol(http)
            transport.resume_reading()
            return
        task = asyncio.create_task(self._shake_hands(transport, source, self._context))
        self._handshakes.add(task)
        task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(
        self, transport: asyncio.Transport, source: Source | None, context: ssl.SSLContext
    ) -> None:
        early = _EarlyData()
        try:
            secured = await asyncio.get_running_loop().start_tls(
                transport, early, context, server_side=True, ssl_handshake_timeout=self.seconds
            )
        except OSError:  # the handshake failed or took too long
            transport.abort()
            return
        if secured is None or early.is_lost:
            transport.abort()
            return
        http = self.make_http(source)
        http.connection_made(secured)
        secured.set_protocol(http)
        if early.data:
            http.data_received(bytes(early.data))


class _EarlyData(asyncio.Protocol):
    """Keeps what arrives with the end of a handshake, until the protocol that reads it is there."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        self.is_lost = True


class _HeaderReader(asyncio.BufferedProtocol):
    """Reads the header of one connection."""

    def __init__(self, owner: ProxiedConnections) -> None:
        self._owner = owner
        self._data = b""
        self._buffer = bytearray(LIMIT_BYTES)
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse every peer that is not trusted, before anything is read."""
        self._transport = cast("asyncio.Transport", transport)
        peer = (get_remote_addr(self._transport) or ("",))[0]
        if not self._owner.trusted.trust(normalized(peer)):
            self._drop("peer_not_trusted", peer=peer)
            return
        loop = asyncio.get_running_loop()
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
        # The transport must not change its protocol in the middle of a read
        asyncio.get_running_loop().call_soon(self._begin, source)

    def _begin(self, source: Source | None) -> None:
        if not self._transport.is_closing():
            self._owner.begin(self._transport, source)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        """Stop the time limit."""
        self._stop_timer()

    def _drop(self, reason: str, **fields: Any) -> None:
        self._stop_timer()
        self._owner.connections.limit_reached("server.proxy_protocol", reason=reason, **fields)
        self._transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
