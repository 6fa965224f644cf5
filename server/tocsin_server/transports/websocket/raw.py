"""WebSocket on the asyncio transport: `websockets`' sans-I/O protocol reads, frames are written directly.

A connection has no task, queue or timer of its own: fan-out writes the same bytes to each transport, the
node keeps the deadlines, and the transport's write buffer is the queue of a slow client. The server that
accepts connections constructs a `WebSocketConnection`, and asyncio calls it as it calls any protocol.

The mutable state is that of `WebSocketConnection` and of its `MessageReader`. Only methods of the
connection change it; asyncio, the server and the node call them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.phases import CONNECTED
from tocsin_server.errors import Disconnect
from tocsin_server.node.connection import BEHIND_BYTES, CAUGHT_UP_BYTES
from tocsin_server.protocol.messages import Ping, ServerMessage
from tocsin_server.transports.websocket.frame_protocol import FRAMES_PER_TURN, whole_message
from tocsin_server.transports.websocket.framing import (
    LARGE_FRAME_BYTES,
)
from tocsin_server.transports.websocket.kinds import Kind
from tocsin_server.transports.websocket.message_reader import MessageReader
from tocsin_server.transports.websocket.opening import FirstRequest, OpeningRequest, Refused, decide

if TYPE_CHECKING:
    from tocsin_server.core.session import Session
    from tocsin_server.node.client_request import ClientRequest
    from tocsin_server.node.connection import Connections
    from tocsin_server.protocol.codec import Codec
    from tocsin_server.transports.websocket.kinds import Kind
from tocsin_server.transports.websocket.opening import Opened

CLOSE_REPLY_SECONDS = 5.0
"""How long the client may take to answer a close frame before the connection is dropped (protocol §8)."""

LINGER_SECONDS = 1.0
"""How long a client that broke the protocol may take to read why, before its connection is dropped."""

PING_BYTES = 4
"""The payload of a ping frame."""

_OPEN = State.OPEN


class WebSocketConnection(asyncio.Protocol):
    """One WebSocket connection, from the first byte on.

        accepted --answer()--> open --close()--> closed --answered, or too late--> lost
                                |                  ^
                                +--> finishing ----+

    While it is accepted, its first request reads what arrives, unless the server reads the handshake. It has
    a session once it is open. It is finishing once the client has closed or broken the protocol: the commands
    before that are answered first. Once it is closed, its close frame is written and no message follows.

    What has arrived is read by turns (`node/turns.py`): a few frames, then those of other connections. While
    bytes are unread, or commands wait in the session's backlog, nothing is read from the socket.

    `server_connections` is the server's own set of open protocols; the connection is in it from
    `connection_made` to `connection_lost`, and the server calls `shutdown` on each that is left.
    """

    __slots__ = (
        "_abort_timer",
        "_address_key",
        "_connections",
        "_exempt_bytes",
        "_first_request",
        "_ignores_input",
        "_is_busy",
        "_is_finishing",
        "_is_half_open",
        "_is_reading",
        "_reader",
        "_server_connections",
        "_transport",
        "_written_bytes",
        "address",
        "codec",
        "framing",
        "has_closed",
        "is_behind",
        "is_paused",
        "ping_payload",
        "request",
        "session",
        "transport_name",
        "write",
    )

    session: Session

    def __init__(self, connections: Connections, server_connections: set[Any]) -> None:
        self._connections = connections
        self._server_connections = server_connections
        self._first_request: FirstRequest | None = None
        self._address_key: str | None = None  # of an open connection
        self._abort_timer: asyncio.TimerHandle | None = None
        self._reader: MessageReader | None = None  # made when first needed

    # --------------------------------------------------------------------------------- asyncio and the server

    def read_first_with(self, first_request: FirstRequest | None) -> None:
        """Let it read what arrives until a handshake is answered. None: another protocol takes over."""
        self._first_request = first_request

    @property
    def awaits_request(self) -> bool:
        """Whether the first request has not arrived whole."""
        return self._first_request is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._server_connections.add(self)
        if self._first_request is not None:
            self._first_request.begin(self, self._transport)

    def answer(self, kind: Kind, request: OpeningRequest, peer: str) -> bool:
        """Answer a handshake: open the connection, or refuse it. Called once.

        `peer` is the address of the socket's other end. A refused client may take a while to read why.
        """
        self._first_request = None
        decided = decide(self._connections, kind.transport_name, request, peer)
        if isinstance(decided, Refused):
            self._transport.write(decided.response)
            self._transport.close()
            self._abort_after(CLOSE_REPLY_SECONDS)
            return False
        self._open(kind, decided)
        return True

    def _open(self, kind: Kind, opened: Opened) -> None:
        """Write the response that opens the connection, and add it to the node."""
        connections, transport, handshake = self._connections, self._transport, opened.handshake
        self.transport_name = kind.transport_name
        self.address = opened.address
        self.request: ClientRequest | None = opened.request
        self._address_key = opened.address_key
        self._is_half_open = True
        if opened.inflation is None:
            self.framing = kind.framings[handshake.codec]
        else:
            self.framing = kind.deflated_framings[handshake.codec]
            self._reader = MessageReader(connections, self, opened.inflation)
        self.codec: Codec = self.framing.codec
        self.ping_payload: bytes | None = None
        """The payload of the last ping frame; None if the client gets none."""
        self._is_busy = False
        self.is_paused = False
        self._is_reading = False
        self._ignores_input = False
        self._is_finishing = False
        self.has_closed = False
        self._exempt_bytes = 0
        self._written_bytes = 0
        self.is_behind = False
        """Whether the transport still has more than BEHIND_BYTES, after it offered them to the socket."""
        self.write: Callable[[bytes], object] = transport.write
        announces_pings = not handshake.uses_ping_frames
        if not announces_pings:
            self.ping_payload = b""
        self.session = connections.new_session(
            wants_pong=not (kind.is_unidirectional and announces_pings),
            announces_pings=announces_pings,
            is_unidirectional=kind.is_unidirectional,
        )
        high = min(BEHIND_BYTES, connections.limits.queue_bytes)
        transport.set_write_buffer_limits(high=high, low=min(CAUGHT_UP_BYTES, high))
        transport.write(opened.response)
        connections.attach(self)
        connections.half_open.add(self, opened.address_key)
        if why := handshake.disconnect_of(is_unidirectional=kind.is_unidirectional):
            connections.handle_event(self, events.ServerDisconnect(why))

    def connection_lost(self, _exc: Exception | None) -> None:
        """End the session, which unsubscribes from its channels."""
        self._server_connections.discard(self)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        if self._first_request is not None:
            self._first_request.leave()
            self._first_request = None
        if self._address_key is None:
            return
        self._connections.handle_event(self, events.ConnectionLost())
        if self.is_behind:
            self.is_behind = False
            self._connections.client_caught_up(self)
        if self._is_half_open:
            self._connections.half_open.remove(self)
        self._connections.admission.leave(self._address_key)
        self._address_key = None
        if self._reader is not None:
            self._reader.release()
            self._reader = None

    def drop_half_open(self, limit: str) -> None:
        """Close because newer connections wait for their connect command."""
        if self._first_request is not None:
            self._first_request.drop(limit)
            return
        self._is_half_open = False
        self._connections.limit_reached(limit, client=self.session.client)
        self.refuse_input(errors.RATE_LIMITED)

    def pause_writing(self) -> None:
        """The client is behind. From now on every write is measured.

        A large frame is exempt from the queue limit, such as a large publication: a client disconnected for
        it would only recover the same again.
        """
        self.is_behind = True
        self._exempt(max(self._exempt_bytes, self.framing.recent_large_bytes))
        self.write = self._write_measured
        self._connections.client_is_behind(self)
        self._close_if_overfull()

    def resume_writing(self) -> None:
        """The client has taken most of the queue: no frame is exempt any longer."""
        self.is_behind = False
        self._exempt_bytes = 0
        self.write = self._transport.write
        self._connections.client_caught_up(self)

    def _write_measured(self, frame: bytes) -> None:
        """Write a frame for a client that is behind."""
        if not self._exempt_bytes:
            self._exempt(len(frame))
        self._transport.write(frame)
        self._written_bytes += len(frame)
        self._close_if_overfull()

    def write_control(self, data: bytes) -> None:
        """Write what is no message of the session, such as a pong, unless the transport closes."""
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self.is_behind:
            self._written_bytes += len(data)
            self._close_if_overfull()

    def _exempt(self, size: int) -> None:
        self._exempt_bytes = size if size > self._connections.limits.queue_bytes // 2 else 0

    def _close_if_overfull(self) -> None:
        """Close a client as slow if more is queued than the limit and a large frame explain.

        The transport may call this in the middle of a write, so the event waits for the loop's next turn.
        """
        if self.queued_bytes > self._connections.limits.queue_bytes + self._exempt_bytes:
            slow = events.ServerDisconnect(errors.SLOW)
            asyncio.get_running_loop().call_soon(self._connections.handle_event, self, slow)

    def shutdown(self) -> None:
        """Close because the server stops."""
        if self._address_key is None:
            self._transport.close()
            return
        self._connections.handle_event(self, events.ServerDisconnect(errors.SHUTDOWN))

    def data_received(self, data: bytes) -> None:
        """Read the first frames; those that are left have a later turn."""
        if self._reader is None:  # nothing but whole messages has arrived
            if self._address_key is None:
                if self._first_request is not None:
                    self._first_request.read(data)
                return
            message = whole_message(data, self._connections.limits.message_bytes)
            if message is not None:
                self._connections.receive(self, message)
                return
        if self._is_finishing and not self._frames.may_discard(len(data)):
            self._ignores_input = True
            self._update_reading()
        if not self._ignores_input:
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Take frames, write the answers of their protocol; finish if the client has closed."""
        reader, protocol = self._frames, self._frames.protocol
        self._is_reading = True
        reader.read(data, FRAMES_PER_TURN)
        self._is_reading = False
        if self.is_paused or self._is_busy or self._ignores_input or protocol.frames.buffer:
            self._update_reading()
        reader.watch_message()
        if protocol.state is _OPEN or self.has_closed:
            if protocol.writes or self.has_closed:
                self._flush()
        else:  # the client closed or broke the protocol; its commands before that are answered first
            self._log_failure()
            self._is_finishing = True
            self._finish_if_idle()
            if not self.has_closed:
                self._abort_after(CLOSE_REPLY_SECONDS)

    def _read_on(self) -> None:
        """Read the next frames of what has arrived, in a turn of this connection."""
        self._is_reading = False
        is_over = self._ignores_input or self._transport.is_closing() or self._frames.protocol.reader.eof
        if not is_over and not self._is_busy:
            self._read(b"")

    def _log_failure(self) -> None:
        """Log that the client broke the protocol, such as with a message that is too large."""
        sent = self._frames.protocol.close_sent
        is_answer = sent is self._frames.protocol.close_rcvd  # the protocol repeats the client's close frame
        if sent is not None and not is_answer and not self._is_finishing:
            client, code = self.session.client, int(sent.code)
            self._connections.log_refusal("protocol_broken", client=client, code=code, reason=sent.reason)

    def eof_received(self) -> None:
        """Note that the client sends nothing further; asyncio then closes the transport.

        Frames are only unread here over TLS: elsewhere no end is read while reading is paused.
        """
        if self._reader is not None:
            self._reader.protocol.frames.discard()
            self._reader.protocol.frames.eof = True

    # ------------------------------------------------------------------------------------------------ reading

    @property
    def _frames(self) -> MessageReader:
        """What reads all frames from the first on that is not a whole message, and makes control frames."""
        if self._reader is None:
            self._reader = MessageReader(self._connections, self, None)
        return self._reader

    def refuse_input(self, why: Disconnect) -> None:
        """Close, and read nothing further: the client may go on sending what it is closed for."""
        self._abort_after(LINGER_SECONDS)
        self._connections.handle_event(self, events.ServerDisconnect(why))
        self._ignores_input = True
        self._frames.protocol.frames.discard()
        self._update_reading()
        if not self._transport.is_closing():
            self._end_writing()

    def pause_reading(self, is_busy: bool) -> None:
        """Read nothing while commands of the client wait; read again once none does."""
        if is_busy != self._is_busy:
            self._is_busy = is_busy
            self._update_reading()
        if self._is_finishing:
            asyncio.get_running_loop().call_soon(self._finish_if_idle)

    def _update_reading(self) -> None:
        """Pause or resume the socket, and ask for a turn if frames are unread and may be read."""
        if self._is_reading:  # or waiting for its turn: read again afterwards
            return
        has_unread = (
            self._reader is not None
            and self._reader.protocol.frames.has_unread_frames
            and not self._ignores_input
        )
        must_pause = self._is_busy or has_unread or self._ignores_input
        if must_pause != self.is_paused and not self._transport.is_closing():
            self.is_paused = must_pause
            if must_pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        if has_unread and not self._is_busy:
            self._is_reading = True
            self._connections.reading_turns.add(self._read_on)

    # ------------------------------------------------------------------------------------------------ writing

    @property
    def queued_bytes(self) -> int:
        """How many bytes the transport's write buffer holds."""
        return self._transport.get_write_buffer_size()

    @property
    def taken_bytes(self) -> int:
        """How many of the bytes written while the client is behind are no longer queued."""
        return self._written_bytes - self.queued_bytes

    @property
    def sending_bytes(self) -> int:
        """Return 0: the socket takes parts of a frame."""
        return 0

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Write the session's messages as one frame. Raises PayloadNotJson before it writes anything."""
        if self._is_half_open and self.session.phase is CONNECTED:
            self._is_half_open = False
            self._connections.half_open.remove(self)
        is_pinged = False
        if self.ping_payload is not None:
            is_pinged = any(isinstance(message, Ping) for message in messages)
            messages = [message for message in messages if not isinstance(message, Ping)]
        frame = self.framing.frame(list(map(self.codec.encode, messages))) if messages else b""
        if is_pinged:
            # The answer repeats the payload (RFC 6455 §5.5.3), which a client that reads nothing cannot know
            self.ping_payload = os.urandom(PING_BYTES)
            self._frames.protocol.send_ping(self.ping_payload)
            self._flush()
        if frame and not self.has_closed:
            if len(frame) > LARGE_FRAME_BYTES and not self.is_behind:
                self._exempt_bytes = max(len(frame), self._exempt_bytes)
            self.write(frame)
            self._connections.count_sent(len(frame))
            if not self.is_behind:
                self._exempt_bytes = 0

    def _flush(self) -> None:
        """Write what the protocol has to send: pongs and close frames."""
        if self._transport.is_closing():
            return
        protocol = self._frames.protocol
        for data in protocol.data_to_send():
            if data:
                self.write_control(data)
            else:
                self._end_writing()
        if protocol.close_expected():
            self._abort_after(CLOSE_REPLY_SECONDS)

    # ------------------------------------------------------------------------------------------------ closing

    def close(self, disconnect: Disconnect) -> None:
        """Write the close frame after what is queued. Unless it is answered in time, drop the connection."""
        if self.has_closed:
            return
        self.has_closed = True
        protocol = self._frames.protocol
        if protocol.state is _OPEN:
            protocol.send_close(disconnect.code, disconnect.reason)
            self._flush()
        elif not self._transport.is_closing():
            # The protocol has read on, and its answer concerns what came later. The first reason counts
            protocol.data_to_send()
            close_frame = Frame(Opcode.CLOSE, Close(disconnect.code, disconnect.reason).serialize())
            self._transport.write(close_frame.serialize(mask=False))
            self._end_writing()
        self._abort_after(CLOSE_REPLY_SECONDS)
        self._is_busy = False  # to read the client's close frame
        self._update_reading()

    def drop(self) -> None:
        """Drop the connection with what is queued."""
        self._transport.abort()

    def _finish_if_idle(self) -> None:
        """Answer the client's close frame, once every command before it is answered."""
        if self._is_finishing and not self.has_closed and not self.session.is_busy:
            self.has_closed = True
            self._flush()
            self._connections.handle_event(self, events.ConnectionLost())

    def _end_writing(self) -> None:
        """Close the transport, or only its sending half if the client may still send.

        A reset would discard what the client has not read. The client closes its half once it reads the end.
        """
        if self._frames.protocol.close_rcvd is None:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._abort_after(LINGER_SECONDS)
        else:
            self._transport.close()

    def _abort_after(self, seconds: float) -> None:
        if self._abort_timer is None:
            loop = asyncio.get_running_loop()
            self._abort_timer = loop.call_later(seconds, self._transport.abort)
