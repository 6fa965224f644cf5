"""One connection of a listener, straight on an asyncio transport: the head of an HTTP answer comes first."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from typing import ClassVar
from urllib.parse import urlsplit

from tocsin.errors import BadProtocol

from .listener import Listener

_HEAD_BYTES = 65536


class Wire(asyncio.Protocol, ABC):
    """What both kinds of wire share. ``status`` is the one that an answer must have."""

    status: ClassVar[int]

    def __init__(self, listener: Listener, channel: str, url: str, token: str) -> None:
        self._listener = listener
        self._channel = channel
        self._url = urlsplit(url)
        self._token = token
        self._head = b""
        self._is_open = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 # TCP or TLS
        self._transport = transport
        self._listener.connected(transport)
        transport.write(self._request())

    def data_received(self, data: bytes) -> None:
        """Read what came, all with one look at the clock."""
        try:
            if not self._is_open:
                data = self._open(data)
            if data:
                self._read(data, time.monotonic())
        except (BadProtocol, ValueError, LookupError, TypeError) as error:
            self._lose(0, f"not this protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell it, unless the listener had this connection aborted."""
        self._lose(0, "the connection broke" if exc else "the connection ended without a word")

    @abstractmethod
    def _request(self) -> bytes:
        """Say what to ask."""

    @abstractmethod
    def _opened(self, head: bytes) -> None:
        """Go on after an answer, its head in lower case, that has the right status."""

    @abstractmethod
    def _read(self, data: bytes, now: float) -> None:
        """Read a piece of what follows the head; whatever is no such protocol raises."""

    def _open(self, data: bytes) -> bytes:
        """Wait for the head, judge it, and give what follows it."""
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _HEAD_BYTES:
                raise BadProtocol("the head of the answer does not end")
            return b""
        status = int(head.split(b" ", 2)[1])
        if status != self.status:
            self._lose(0, f"cannot connect: HTTP {status}")
            return b""
        self._is_open, self._head = True, b""
        self._opened(head.lower())
        return rest

    def _lose(self, code: int, reason: str) -> None:
        if self._transport is not None and self._listener.transport is self._transport:
            self._listener.lost(code, reason)

    def _is_current(self) -> bool:
        """Say whether the listener still listens here: what a piece ended is not read to its end."""
        return self._listener.transport is self._transport

    def _target(self) -> str:
        return f"{self._url.path or '/'}{'?' + self._url.query if self._url.query else ''}"
