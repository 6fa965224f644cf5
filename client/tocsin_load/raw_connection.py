"""One connection of a subscriber, directly on an asyncio transport. It begins with an HTTP response."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from tocsin.errors import BadProtocol

from .subscriber import Subscriber

_HEAD_BYTES = 65536


class RawConnection(asyncio.Protocol, ABC):
    """The part that is common to WebSockets and event streams. ``status`` is the expected HTTP status.

    The mutable state is the head received so far, ``_is_open`` and the transport.
    """

    status: ClassVar[int]

    def __init__(self, subscriber: Subscriber, channel: str, url: str, token: str) -> None:
        self._subscriber = subscriber
        self._channel = channel
        self._url = urlsplit(url)
        self._token = token
        self._head = b""
        self._is_open = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 # TCP or TLS
        self._transport = transport
        self._subscriber.on_connected(transport)
        transport.write(self._request())

    def data_received(self, data: bytes) -> None:
        """Handle received bytes. The clock is read once for all of them."""
        try:
            if not self._is_open:
                data = self._read_head(data)
            if data:
                self._on_data(data, time.monotonic())
        except (BadProtocol, ValueError, LookupError, TypeError) as error:
            self._lose(0, f"not this protocol: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the loss, unless the subscriber itself aborted this connection."""
        self._lose(0, "the connection broke" if exc else "the connection was closed without a code")

    @abstractmethod
    def _request(self) -> bytes:
        """Return the HTTP request."""

    @abstractmethod
    def _on_response(self, head: bytes) -> None:
        """Handle a response with the expected status. ``head`` is in lower case."""

    @abstractmethod
    def _on_data(self, data: bytes, now: float) -> None:
        """Handle bytes after the head. Raises an error if they do not follow the protocol."""

    def _read_head(self, data: bytes) -> bytes:
        """Collect the head of the response and check its status. Returns the bytes after it."""
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            if len(self._head) > _HEAD_BYTES:
                raise BadProtocol("the head of the response is too long")
            return b""
        status = int(head.split(b" ", 2)[1])
        if status != self.status:
            self._lose(0, self._describe_status(status, rest.decode(errors="replace")))
            return b""
        self._is_open, self._head = True, b""
        self._on_response(head.lower())
        return rest

    def _describe_status(self, status: int, body: str) -> str:  # noqa: ARG002 # WebSockets show it
        """Return why another status than the expected one is a failure."""
        return f"cannot connect: HTTP {status}"

    def _lose(self, code: int, reason: str) -> None:
        if self._transport is not None and self._subscriber.transport is self._transport:
            self._subscriber.on_lost(code, reason)

    def _is_current(self) -> bool:
        """Return whether the subscriber still uses this connection; if not, the rest is dropped."""
        return self._subscriber.transport is self._transport

    def _target(self) -> str:
        return f"{self._url.path or '/'}{'?' + self._url.query if self._url.query else ''}"

    @property
    def _host(self) -> str:
        """The value of the header ``Host``: the address without its user and password."""
        return self._url.netloc.rpartition("@")[2]

    @property
    def _basic_authorization(self) -> str:
        """The value of the header ``Authorization`` for the user of the address. Empty if there is none."""
        if self._url.username is None:
            return ""
        user, password = unquote(self._url.username), unquote(self._url.password or "")
        return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
