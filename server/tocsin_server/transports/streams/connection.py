"""One stream of protocol messages: a connection whose client reads one response.

Emulated, the client sends its commands in requests of their own. Otherwise it is unidirectional: its request
has its connect command, and no other follows.

The mutable state is that of `StreamedConnection`, and the session id until the connection is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import structs

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.messages import DisconnectPush, Ping, Push, PushEnvelope, Reply, ServerMessage
from tocsin_server.transports.streams.streamed import StreamedConnection

if TYPE_CHECKING:
    from tocsin_server.node.connection import Connections
    from tocsin_server.node.emulated_sessions import SessionAddress
    from tocsin_server.protocol.codec import Codec
    from tocsin_server.transports.streams.framing import PackedMessages, StreamFraming


class StreamConnection(StreamedConnection):
    """A session, and the messages queued for its client."""

    __slots__ = ("_emulated", "_framing", "_transport_name")

    def __init__(
        self,
        connections: Connections,
        transport_name: str,
        framing: StreamFraming,
        *,
        is_unidirectional: bool = False,
    ) -> None:
        session = connections.new_session(
            wants_pong=not is_unidirectional, is_unidirectional=is_unidirectional
        )
        super().__init__(connections, session)
        self._transport_name = transport_name
        self._framing = framing
        self._emulated: SessionAddress | None = None
        if not is_unidirectional:
            self._emulated = connections.emulated_sessions.new_address()

    def open(self, commands: bytes) -> None:
        """Count the connection in, and run the commands of its request. `lose` must follow."""
        if self._emulated is not None:
            self._connections.emulated_sessions.add(self._emulated.session, self)
        self._connections.attach(self)
        self._connections.receive(self, commands)

    def lose(self) -> None:
        """End the session, and take no further commands for it."""
        if self._emulated is not None:
            self._connections.emulated_sessions.remove(self._emulated.session)
        super().lose()

    @property
    def transport_name(self) -> str:
        """The transport's name in logs and metrics."""
        return self._transport_name

    @property
    def codec(self) -> Codec:
        """How the commands and messages are encoded."""
        return self._framing.codec

    @property
    def framing(self) -> StreamFraming:
        """How messages follow one another."""
        return self._framing

    def write(self, packed: PackedMessages) -> None:
        """Write messages that are shared with other streams."""
        if not self.send_queue.write_now(packed.chunk):
            self._put(packed.body)

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Write the session's messages. A client that answers no pings is gone if it has taken nothing.

        Raises PayloadNotJson before it writes anything.
        """
        is_pinged = self._emulated is None and any(isinstance(message, Ping) for message in messages)
        if is_pinged and self.send_queue.take_stall():
            self._handle_later(events.ServerDisconnect(errors.NO_PONG))
        encoded = self._framing.join([self.codec.encode(self._addressed(message)) for message in messages])
        self._connections.count_sent(len(encoded))
        self._put(encoded)

    def close(self, disconnect: Disconnect) -> None:
        """Write the disconnect as the last message, and end the stream."""
        push = Push(disconnect=DisconnectPush(disconnect.code, disconnect.reason))
        self._end_with(self._framing.join([self.codec.encode(PushEnvelope(push))]), disconnect)

    def _addressed(self, message: ServerMessage) -> ServerMessage:
        """Add to the connect result where the client's commands must go."""
        if self._emulated is None or not isinstance(message, Reply) or message.connect is None:
            return message
        session, node = self._emulated
        return structs.replace(message, connect=structs.replace(message.connect, session=session, node=node))
