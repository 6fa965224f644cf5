"""Kept connections to a back end that know how far a request came before its connection ended.

A back end may close an unused connection just when the node sends a request on it. The node then finds the
end of the connection, and that the kernel of the peer has acknowledged no byte of the request. A kernel that
has received bytes acknowledges them in every later segment, that with the end of the connection included (RFC
9293 §3.10.7.4). So the back end closed the connection without the request, which may be sent again.

A request that was acknowledged, or whose connection was reset, may have been read.
"""

from __future__ import annotations

import functools
import socket
import struct
from asyncio import AbstractEventLoop, BaseTransport
from collections.abc import Callable
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_BYTES_ACKED = 120
"""Where `tcpi_bytes_acked` is in Linux' `struct tcp_info` (since 4.1): eight bytes."""


class NotReceived(ConnectionError):
    """The connection ended, and the back end has not received the request."""


class NoAnswer(ConnectionError):
    """The connection ended before the first byte of an answer."""


class BackEndConnection(ResponseHandler):
    """One connection. `begin` is called before each request."""

    def __init__(self, loop: AbstractEventLoop, count: Callable[[int], None]) -> None:
        super().__init__(loop)
        self._count = count
        self._acked_before: int | None = None
        self._acked_at_end: int | None = None
        self._has_answered = False

    def connection_made(self, transport: BaseTransport) -> None:
        """Count the connection."""
        super().connection_made(transport)
        self._count(1)

    def begin(self) -> None:
        """Note what was acknowledged before the next request."""
        self._acked_before, self._acked_at_end = self._acked_bytes(), None
        self._has_answered = False

    def data_received(self, data: bytes) -> None:
        """Note that an answer has begun."""
        self._has_answered = True
        super().data_received(data)

    def eof_received(self) -> None:
        """Note what was acknowledged when the end of the connection arrived."""
        self._acked_at_end = self._acked_bytes()
        super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Tell how far the request came."""
        self._count(-1)
        if not self._has_answered:
            was_closed = exc is None or isinstance(exc, BrokenPipeError)
            is_unread = self._acked_at_end is not None and self._acked_at_end == self._acked_before
            exc = NotReceived() if was_closed and is_unread else NoAnswer()
        super().connection_lost(exc)

    def _acked_bytes(self) -> int | None:
        """How many bytes the kernel of the peer has acknowledged; None where the system does not tell."""
        option = getattr(socket, "TCP_INFO", None)
        connection = None if self.transport is None else self.transport.get_extra_info("socket")
        if option is None or connection is None:
            return None
        try:
            found = connection.getsockopt(socket.IPPROTO_TCP, option, _BYTES_ACKED + 8)
        except OSError:
            return None
        return struct.unpack_from("Q", found, _BYTES_ACKED)[0] if len(found) == _BYTES_ACKED + 8 else None


class BackEndConnector(aiohttp.TCPConnector):
    """Keeps connections to one back end, at most `limit`. Its requests wait for a free one in their order."""

    def __init__(self, *, limit: int, keep_alive: float) -> None:
        super().__init__(limit=limit, keepalive_timeout=keep_alive)
        self.open_connections = 0
        factory = functools.partial(BackEndConnection, loop=self._loop, count=self._count)
        self._factory = factory  # type: ignore[assignment]  # it makes a subclass

    def _count(self, difference: int) -> None:
        self.open_connections += difference

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
    ) -> Connection:
        """Return a connection of the pool, or a new one."""
        connection = await super().connect(req, traces, timeout)
        if isinstance(connection.protocol, BackEndConnection):
            connection.protocol.begin()
        return connection
