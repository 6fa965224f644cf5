"""What all connections have in common that are one HTTP response: a queue of bytes, an address, and an end.

The mutable state is that of `StreamedConnection`: its send_queue, and how it counts at the limits of
addresses. The node and the response change it, through its methods.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.errors import Disconnect
from tocsin_server.node.client_request import joined
from tocsin_server.protocol.messages import ServerMessage
from tocsin_server.transports.http_request import address_of
from tocsin_server.transports.origins import origin_is_named
from tocsin_server.transports.send_queue import FLUSH_SECONDS, SendQueue

if TYPE_CHECKING:
    from starlette.requests import Request

    from tocsin_server.core.admission import NotAdmitted
    from tocsin_server.core.channel import Framing
    from tocsin_server.core.session import Session
    from tocsin_server.node.client_request import ClientRequest
    from tocsin_server.node.connection import Connections
    from tocsin_server.protocol.codec import Codec


class StreamedConnection(ABC):
    """A session, and the bytes queued for its client."""

    __slots__ = ("_connections", "address", "address_key", "request", "send_queue", "session")

    @property
    @abstractmethod
    def codec(self) -> Codec:
        """How the client's commands and the messages to it are encoded."""

    @property
    @abstractmethod
    def framing(self) -> Framing:
        """How messages are packed that many subscribers share."""

    @property
    @abstractmethod
    def transport_name(self) -> str:
        """The transport's name in logs and metrics."""

    def __init__(self, connections: Connections, session: Session) -> None:
        self._connections = connections
        self.session = session
        self.address = ""
        self.request: ClientRequest | None = None
        self.address_key: str | None = None
        """What the connection counts under, once it is admitted."""
        self.send_queue = SendQueue(
            connections.limits.queue_bytes,
            on_behind=lambda: connections.client_is_behind(self),
            on_caught_up=lambda: connections.client_caught_up(self),
        )

    def admit(self, request: Request) -> NotAdmitted | None:
        """Count the connection of a request in, or return why it is refused."""
        self.address = address_of(request)
        key = self._connections.admission.key_of(self.address)
        refused = self._connections.admit(key)
        if refused is not None:
            return refused
        self.address_key = key
        if (kept := self._connections.kept_headers) is not None:
            query = request.scope["query_string"].decode("latin-1")
            headers = joined(request.headers.raw)
            self.request = kept.request(
                self.transport_name,
                self.codec.name,
                self.address,
                headers,
                query,
                cookies_count=origin_is_named(request, self._connections.limits.allowed_origins),
            )
        return None

    # ---------------------------------------------------------------------------------------- the node's side

    @property
    def queued_bytes(self) -> int:
        """How many bytes the send_queue holds."""
        return self.send_queue.queued_bytes

    @property
    def is_behind(self) -> bool:
        """Whether more than BEHIND_BYTES are queued although the server sends."""
        return self.send_queue.is_behind

    @property
    def taken_bytes(self) -> int:
        """How many bytes the server has taken."""
        return self.send_queue.taken_bytes

    @property
    def sending_bytes(self) -> int:
        """Return 0: pieces are small."""
        return 0

    @abstractmethod
    def write(self, packed: Any) -> None:
        """Write what `framing` packed."""

    @abstractmethod
    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Write the session's messages."""

    @abstractmethod
    def close(self, disconnect: Disconnect) -> None:
        """Write why the stream ends, and end it."""

    def drop(self) -> None:
        """Discard what is queued, and end at once."""
        self.send_queue.drop()
        self.send_queue.end(within_seconds=0)

    def lose(self) -> None:
        """End the session, and count the connection out. Must be called when the request has ended."""
        self._connections.handle_event(self, events.ConnectionLost())
        self._connections.client_caught_up(self)
        self.send_queue.detach()
        if self.address_key is not None:
            self._connections.admission.leave(self.address_key)
            self.address_key = None

    def pause_reading(self, is_busy: bool) -> None:  # noqa: B027 - no transport of this kind reads
        """Do nothing: a response receives nothing."""

    # ------------------------------------------------------------------------------------------------ writing

    def _put(self, chunk: bytes, *, exempt: bool = False) -> None:
        self.send_queue.put(chunk, exempt=exempt)
        if self.send_queue.is_overfull:
            self._handle_later(events.ServerDisconnect(errors.SLOW))

    def _end_with(self, last: bytes, disconnect: Disconnect) -> None:
        """Write the last bytes after what is queued, and end.

        A slow client gets only these, after the rest of a chunk that was begun.
        """
        if disconnect is errors.SLOW:
            self.send_queue.drop_unbegun()
        self._connections.count_sent(len(last))
        self.send_queue.put(last)
        self.send_queue.end(within_seconds=FLUSH_SECONDS)

    def _handle_later(self, event: events.Event) -> None:
        """Give the node an event in the loop's next turn: in this one the node is calling the connection."""
        asyncio.get_running_loop().call_soon(self._connections.handle_event, self, event)
