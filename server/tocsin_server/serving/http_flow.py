"""Between uvicorn's HTTP protocol and its transport: when reading pauses, and how responses are written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGISendEvent


class CloseDelimited:
    """Sends the response to an HTTP/1.0 request without chunks, which HTTP/1.0 lacks (RFC 9112 §6.1).

    A response without a length ends with its connection. uvicorn would send it in chunks.
    """

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._has_length = True

    async def send(self, message: ASGISendEvent) -> None:
        """Send one message of a response."""
        if message["type"] == "http.response.start":
            self._has_length = any(name.lower() == b"content-length" for name, _ in message["headers"])
            if not self._has_length:
                self._cycle.chunked_encoding = False
        elif message["type"] == "http.response.body" and not self._has_length:
            # uvicorn counts the bytes of a response that is not chunked
            is_more = message.get("more_body", False)
            self._cycle.expected_content_length = len(message.get("body", b"")) + int(is_more)
        await self._send(message)


class BodyWriter:
    """The ASGI extension BODY_WRITER, for responses in chunks."""

    __slots__ = ("is_paused", "write")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.write: Callable[[bytes], object] = transport.write
        self.is_paused = False
        """Whether the transport's buffer is full, or the connection is lost."""


class Flow(FlowControl):
    """Pauses reading for two reasons: uvicorn's, a body that is not consumed, and the protocol's own."""

    def __init__(self, transport: asyncio.Transport, discard_after_last_response: Callable[[], None]) -> None:
        super().__init__(transport)
        self._discard_after_last_response = discard_after_last_response
        self._is_body_full = False
        self.is_held = False
        """Whether the protocol has paused reading."""

    def pause_reading(self) -> None:
        """Pause because a body is not consumed."""
        self._is_body_full = True
        super().pause_reading()

    def resume_reading(self) -> None:
        """Resume, unless the protocol holds. The application waits for a body, or for the client to leave."""
        self._is_body_full = False
        self._discard_after_last_response()
        if not self.is_held:
            super().resume_reading()

    def hold(self, is_held: bool) -> None:
        """Pause while bytes have arrived that must not be parsed yet; resume afterwards."""
        if is_held == self.is_held or self._transport.is_closing():
            return
        self.is_held = is_held
        if is_held:
            super().pause_reading()
        elif not self._is_body_full:
            super().resume_reading()
