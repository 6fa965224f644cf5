"""What a node sees of a connection, whatever its transport."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tocsin_server.core.channel import Framing
from tocsin_server.core.session import Session
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.messages import ServerMessage


class Connection(Protocol):
    """A session with its transport. All methods are synchronous and never raise."""

    session: Session

    @property
    def transport_name(self) -> str:
        """`websocket`, `asgi` or `sse`, for logs and metrics."""

    @property
    def codec(self) -> Codec:
        """How the connection's commands and messages are encoded."""

    @property
    def framing(self) -> Framing:
        """How it wants payloads packed that many peers share."""

    @property
    def write(self) -> Callable[[Any], object]:
        """Write a packed payload after everything written before."""

    @property
    def queued_bytes(self) -> int:
        """How much waits to be sent to it."""

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Write messages of its own, after everything written before."""

    def close(self, why: Disconnect) -> None:
        """Write what waits, then close with this code."""

    def pause_reading(self, is_busy: bool) -> None:
        """Read nothing more from the peer while its commands wait for the engine."""
