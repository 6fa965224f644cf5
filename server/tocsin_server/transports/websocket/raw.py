"""WebSocket on the asyncio transport: `websockets`' sans-I/O protocol reads, frames are written directly.

A connection has no task, queue or timer of its own: fan-out writes the same bytes to each transport, the
node keeps the deadlines, and the transport's write buffer is the queue of a slow client. The server that
accepts connections constructs a `WebSocketConnection`, and asyncio calls it as it calls any protocol.

The mutable state is that of `WebSocketConnection` and of its sans-I/O protocol. Only methods of the
connection change it; asyncio, the server and the node call them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import State

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.phases import CONNECTED
from tocsin_server.core.rate_limit import NEVER_USED, RateLimit
from tocsin_server.errors import Disconnect
from tocsin_server.node.connection import BEHIND_BYTES, CAUGHT_UP_BYTES
from tocsin_server.protocol.messages import PONG, Ping, ServerMessage
from tocsin_server.transports.websocket.frame_protocol import FRAMES_PER_TURN, FrameProtocol, whole_message
from tocsin_server.transports.websocket.framing import (
    DEFLATED_FRAMINGS,
    FRAMINGS,
    LARGE_FRAME_BYTES,
    UNIDIRECTIONAL_DEFLATED_FRAMING,
    UNIDIRECTIONAL_FRAMING,
    RawFraming,
)
from tocsin_server.transports.websocket.opening import OpeningRequest, Refused, decide

if TYPE_CHECKING:
    from tocsin_server.core.session import Session
    from tocsin_server.node.client_request import ClientRequest
    from tocsin_server.node.connection import Connections
    from tocsin_server.protocol.codec import Codec
    from tocsin_server.transports.websocket.opening import Opened

CLOSE_REPLY_SECONDS = 5.0
"""How long the client may take to answer a close frame before the connection is dropped (protocol §8)."""

DISCARD_RATE = RateLimit(262_144, 2_097_152)
"""How many bytes a second, and at once, are discarded of a client that has broken the protocol.

So its end is noticed. A client that sends more is read no further: it could take all time of the node.
"""

LINGER_SECONDS = 1.0
"""How long a client that broke the protocol may take to read why, before its connection is dropped."""

COUNTED_BYTES = 4096
"""So many bytes of a frame count as one more frame, once the connection is closed."""

PING_BYTES = 4
"""The payload of a ping frame."""

MESSAGE_TIMEOUT = Disconnect(int(CloseCode.POLICY_VIOLATION), "message timeout")
"""A message was begun and did not arrive as a whole in time."""

_TEXT, _BINARY, _OPEN = Opcode.TEXT, Opcode.BINARY, State.OPEN
_MESSAGE_OPCODES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

_PONG_HEAD = bytes((0x80 | Opcode.PONG,))


class Kind(NamedTuple):
    """What connections of one path have in common."""

    transport_name: str
    is_unidirectional: bool
    framings: Mapping[Codec, RawFraming]
    deflated_framings: Mapping[Codec, RawFraming]


BIDIRECTIONAL = Kind("websocket", False, FRAMINGS, DEFLATED_FRAMINGS)

UNIDIRECTIONAL = Kind(
    "uni_websocket",
    True,
    dict.fromkeys(FRAMINGS, UNIDIRECTIONAL_FRAMING),
    dict.fromkeys(FRAMINGS, UNIDIRECTIONAL_DEFLATED_FRAMING),
)
"""The client sends one connect request, and gets pushes alone (protocol §16)."""


class FirstRequest(Protocol):
    """Reads what arrives on a connection until a handshake is answered, or another protocol takes over."""

    def begin(self, transport: asyncio.Transport) -> None:
        """Called once the connection is made."""

    def read(self, data: bytes) -> None:
        """Called with what has arrived."""

    def drop(self, limit: str) -> None:
        """Drop the connection because of a limit."""

    def leave(self) -> None:
        """Count the connection no longer."""


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
        "_fragments",
        "_frames_full_at",
        "_has_closed",
        "_ignores_input",
        "_inflation",
        "_is_busy",
        "_is_finishing",
        "_is_half_open",
        "_is_paused",
        "_is_reading",
        "_kind",
        "_message_since",
        "_message_timer",
        "_opcode",
        "_ping_payload",
        "_protocol",
        "_server_connections",
        "_transport",
        "_written_bytes",
        "address",
        "framing",
        "is_behind",
        "request",
        "session",
        "write",
    )

    session: Session

    def __init__(self, connections: Connections, server_connections: set[Any]) -> None:
        self._connections = connections
        self._server_connections = server_connections
        self._first_request: FirstRequest | None = None
        self._address_key: str | None = None  # of an open connection
        self._abort_timer: asyncio.TimerHandle | None = None
        self._message_timer: asyncio.TimerHandle | None = None
        self._protocol: FrameProtocol | None = None  # made when first needed

    # --------------------------------------------------------------------------------- asyncio and the server

    def read_first_with(self, first_request: FirstRequest | None) -> None:
        """Let it read what arrives until a handshake is answered. None: another protocol takes over."""
        self._first_request = first_request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the first request."""
        self._transport = cast("asyncio.Transport", transport)
        self._server_connections.add(self)
        if self._first_request is not None:
            self._first_request.begin(self._transport)

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
        self._kind = kind
        self.address = opened.address
        self.request: ClientRequest | None = opened.request
        self._address_key = opened.address_key
        self._is_half_open = True
        self._inflation = opened.inflation
        if self._inflation is None:
            self.framing = kind.framings[handshake.codec]
        else:
            self.framing = kind.deflated_framings[handshake.codec]
            self._protocol = FrameProtocol(connections.limits.message_bytes, [self._inflation])
            self._inflation.on_inflated = self._protocol.frames.count_inflated
        self._fragments: bytes | bytearray = b""
        self._opcode = _TEXT
        self._ping_payload: bytes | None = None  # of the last ping frame; None if the client gets none
        self._frames_full_at = NEVER_USED
        self._message_since = 0.0
        self._is_busy = False
        self._is_paused = False
        self._is_reading = False
        self._ignores_input = False
        self._is_finishing = False
        self._has_closed = False
        self._exempt_bytes = 0
        self._written_bytes = 0
        self.is_behind = False
        """Whether the transport still has more than BEHIND_BYTES, after it offered them to the socket."""
        self.write: Callable[[bytes], object] = transport.write
        announces_pings = not handshake.uses_ping_frames
        if not announces_pings:
            self._ping_payload = b""
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
        for timer in (self._abort_timer, self._message_timer):
            if timer is not None:
                timer.cancel()
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
        if self._protocol is not None:
            self._protocol.release_cycles()

    def drop_half_open(self, limit: str) -> None:
        """Close because newer connections wait for their connect command."""
        if self._first_request is not None:
            self._first_request.drop(limit)
            return
        self._is_half_open = False
        self._connections.limit_reached(limit, client=self.session.client)
        self._refuse_input(errors.RATE_LIMITED)

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

    def _write_control(self, data: bytes) -> None:
        """Write what is no message of the session: pongs and close frames."""
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
        if self._protocol is None and self._take_first(data):
            return
        if self._is_finishing and not self._may_discard(len(data)):
            self._ignores_input = True
            self._update_reading()
        if not self._ignores_input:
            self._read(data)

    def _take_first(self, data: bytes) -> bool:
        """Take what no protocol reads: the bytes of the first request, and whole messages after it."""
        if self._address_key is None:
            if self._first_request is not None:
                self._first_request.read(data)
            return True
        message = whole_message(data, self._connections.limits.message_bytes)
        if message is None:
            return False
        self._connections.receive(self, message)
        return True

    def _may_discard(self, size: int) -> bool:
        full_at = DISCARD_RATE.take(self._frames_full_at, time.monotonic(), size)
        if full_at is not None:
            self._frames_full_at = full_at
        return full_at is not None

    def _read(self, data: bytes) -> None:
        """Feed the protocol, take its events, write its answers; finish if the client has closed."""
        protocol = self._frame_protocol
        frames = protocol.frames
        self._is_reading = True
        frames.frames_left = FRAMES_PER_TURN
        for frame in protocol.read(data):
            if not self._take_frame(frame):
                break
        self._is_reading = False
        if self._is_paused or self._is_busy or self._ignores_input or frames.buffer:
            self._update_reading()
        if protocol.current_size is not None or frames.is_in_frame:
            self._watch_message()
        else:
            self._message_since = 0.0
        if protocol.state is _OPEN or self._has_closed:
            if protocol.writes or self._has_closed:
                self._flush()
        else:  # the client closed or broke the protocol; its commands before that are answered first
            self._log_failure()
            self._is_finishing = True
            self._finish_if_idle()
            if not self._has_closed:
                self._abort_after(CLOSE_REPLY_SECONDS)

    def _read_on(self) -> None:
        """Read the next frames of what has arrived, in a turn of this connection."""
        self._is_reading = False
        is_over = self._ignores_input or self._transport.is_closing() or self._frame_protocol.reader.eof
        if not is_over and not self._is_busy:
            self._read(b"")

    def _log_failure(self) -> None:
        """Log that the client broke the protocol, such as with a message that is too large."""
        sent = self._frame_protocol.close_sent
        if sent is not None and self._frame_protocol.close_rcvd is None and not self._is_finishing:
            client, code = self.session.client, int(sent.code)
            self._connections.log_refusal("protocol_broken", client=client, code=code, reason=sent.reason)

    def eof_received(self) -> None:
        """Note that the client sends nothing further; asyncio then closes the transport.

        Frames are only unread here over TLS: elsewhere no end is read while reading is paused.
        """
        if self._protocol is not None:
            self._protocol.frames.discard()
            self._protocol.frames.eof = True

    # ------------------------------------------------------------------------------------------------ reading

    @property
    def _frame_protocol(self) -> FrameProtocol:
        """What reads all frames from the first on that is not a whole message, and writes control frames."""
        if self._protocol is None:
            self._protocol = FrameProtocol(self._connections.limits.message_bytes)
        return self._protocol

    def _take_frame(self, frame: Frame) -> bool:
        """Take one frame; False if the frames after it must be ignored."""
        if (
            (frame.opcode is _TEXT or frame.opcode is _BINARY)
            and frame.fin
            and self._inflation is None
            and not self._has_closed
        ):  # a whole message, as nearly every frame is
            self._opcode = frame.opcode
            return self._take_message(bytes(frame.data))
        is_of_message = frame.opcode in _MESSAGE_OPCODES
        is_whole_message = is_of_message and frame.fin and not self._fragments and frame.opcode != Opcode.CONT
        is_free = (is_whole_message and not self._has_closed) or frame.opcode is Opcode.CLOSE
        amount = 0 if is_free else 1 + (len(frame.data) // COUNTED_BYTES if self._has_closed else 0)
        if self._inflation is not None:
            amount += self._inflation.take_excess_frames()
        if amount and not self._may_send_frames(amount):
            return False
        if is_of_message and self._has_closed:
            return True  # no command follows, so it is not even joined or decoded
        if not is_of_message:
            self._take_control_frame(frame)
            return True
        if frame.opcode != Opcode.CONT:
            self._opcode = frame.opcode
        if is_whole_message:
            return self._take_message(bytes(frame.data))
        # Joined at once: `max_size` bounds the bytes of a message, not the number of its fragments
        if not self._fragments:
            self._fragments = bytearray()
        self._fragments += frame.data
        if not frame.fin:
            return True
        message = bytes(self._fragments)
        self._fragments = b""
        return self._take_message(message)

    def _take_control_frame(self, frame: Frame) -> None:
        if self._frame_protocol.current_size is None:
            self._message_since = 0.0
        if frame.opcode is Opcode.PING:
            self._write_pong()
        if frame.opcode is Opcode.PONG and self.session.awaits_pong and frame.data == self._ping_payload:
            self._connections.handle_event(self, events.Received([PONG]))

    def _may_send_frames(self, amount: int) -> bool:
        """Count frames that are no commands: pings, pongs and fragments. Close if there are too many.

        Once the connection is closed, every frame counts, and a large one several times: only the client's
        close frame is awaited, behind what it sent before it knew. What a message was inflated to beyond
        INFLATED_RATIO counts too.
        """
        full_at = self._connections.limits.frame_rate.take(self._frames_full_at, time.monotonic(), amount)
        if full_at is None:
            if not self._has_closed:
                self._connections.limit_reached("client.frame_rate", client=self.session.client)
            self._refuse_input(errors.RATE_LIMITED)
            return False
        self._frames_full_at = full_at
        return True

    def _refuse_input(self, why: Disconnect) -> None:
        """Close, and read nothing further: the client may go on sending what it is closed for."""
        self._abort_after(LINGER_SECONDS)
        self._connections.handle_event(self, events.ServerDisconnect(why))
        self._ignores_input = True
        self._frame_protocol.frames.discard()
        self._update_reading()
        if not self._transport.is_closing():
            self._end_writing()

    def _watch_message(self) -> None:
        """Limit the time that the message may take from its first byte to its last."""
        if not self._message_since:
            self._message_since = time.monotonic()
            if self._message_timer is None:
                self._start_message_timer(self._connections.limits.message_seconds)

    def _start_message_timer(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._message_timer = loop.call_later(seconds, self._check_message)

    def _check_message(self) -> None:
        """Close if the message has taken too long. A later message, or this node, may be why it has not."""
        self._message_timer = None
        if not self._message_since or self._has_closed:
            return
        seconds = self._connections.limits.message_seconds
        left = self._message_since + seconds - time.monotonic()
        if left > 0 or self._is_paused:
            self._start_message_timer(left if left > 0 else seconds)
            return
        self._connections.limit_reached("client.message_timeout", client=self.session.client)
        self._refuse_input(MESSAGE_TIMEOUT)

    def _write_pong(self) -> None:
        """Write the protocol's answer to a ping before the replies to what follows the ping."""
        writes = self._frame_protocol.writes
        if writes and writes[0][:1] == _PONG_HEAD and not self._transport.is_closing():
            self._write_control(writes.pop(0))

    def _take_message(self, message: bytes) -> bool:
        self._message_since = 0.0
        if self._opcode is _TEXT:  # RFC 6455 §8.1
            try:
                message.decode()
            except UnicodeDecodeError:
                self._frame_protocol.fail(CloseCode.INVALID_DATA, "text is not UTF-8")
                return False
        self._connections.receive(self, message)
        return True

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
            self._protocol is not None and self._protocol.frames.has_unread_frames and not self._ignores_input
        )
        must_pause = self._is_busy or has_unread or self._ignores_input
        if must_pause != self._is_paused and not self._transport.is_closing():
            self._is_paused = must_pause
            if must_pause:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        if has_unread and not self._is_busy:
            self._is_reading = True
            self._connections.reading_turns.add(self._read_on)

    # ------------------------------------------------------------------------------------------------ writing

    @property
    def transport_name(self) -> str:
        """The name of its kind."""
        return self._kind.transport_name

    @property
    def codec(self) -> Codec:
        """The codec that the handshake chose."""
        return self.framing.codec

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
        encode, is_pinged = self.codec.encode, False
        if self._ping_payload is not None:
            is_pinged = any(isinstance(message, Ping) for message in messages)
            messages = [message for message in messages if not isinstance(message, Ping)]
        frame = self.framing.frame([encode(message) for message in messages]) if messages else b""
        if is_pinged:
            # The answer repeats the payload (RFC 6455 §5.5.3), which a client that reads nothing cannot know
            self._ping_payload = os.urandom(PING_BYTES)
            self._frame_protocol.send_ping(self._ping_payload)
            self._flush()
        if frame and not self._has_closed:
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
        protocol = self._frame_protocol
        for data in protocol.data_to_send():
            if data:
                self._write_control(data)
            else:
                self._end_writing()
        if protocol.close_expected():
            self._abort_after(CLOSE_REPLY_SECONDS)

    # ------------------------------------------------------------------------------------------------ closing

    def close(self, disconnect: Disconnect) -> None:
        """Write the close frame after what is queued. Unless it is answered in time, drop the connection."""
        if self._has_closed:
            return
        self._has_closed = True
        protocol = self._frame_protocol
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
        if self._is_finishing and not self._has_closed and not self.session.is_busy:
            self._has_closed = True
            self._flush()
            self._connections.handle_event(self, events.ConnectionLost())

    def _end_writing(self) -> None:
        """Close the transport, or only its sending half if the client may still send.

        A reset would discard what the client has not read. The client closes its half once it reads the end.
        """
        if self._frame_protocol.close_rcvd is None:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._abort_after(LINGER_SECONDS)
        else:
            self._transport.close()

    def _abort_after(self, seconds: float) -> None:
        if self._abort_timer is None:
            loop = asyncio.get_running_loop()
            self._abort_timer = loop.call_later(seconds, self._transport.abort)
