"""WebSocket on the asyncio transport: `websockets`' sans-I/O protocol reads, frames are written directly.

A connection has no task, queue or timer of its own: fan-out writes the same bytes to each transport, the
node keeps the deadlines, and the transport's write buffer is the queue of a slow client. The server that
accepts connections constructs `WebSocketConnection` once a request asks for an upgrade, and calls it as
asyncio calls any protocol.

The mutable state is that of `WebSocketConnection` and of its sans-I/O protocol. Only methods of the
connection change it; asyncio, the server and the node call them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import PONG, Ping, ServerMessage
from tocsin_server.transports.origins import ORIGIN_REFUSED, is_allowed
from tocsin_server.transports.websocket.handshake import Handshake, choose_subprotocol

if TYPE_CHECKING:
    from websockets.datastructures import Headers
    from websockets.typing import Subprotocol

    from tocsin_server.node.connection import Connections

_LOGGER = logging.getLogger(__name__)
_LOGGER.setLevel(logging.WARNING)  # the protocol logs every connection it opens

CLOSE_REPLY_SECONDS = 5.0
"""How long the client may take to answer a close frame before the connection is dropped (protocol §8)."""

LINGER_SECONDS = 1.0
"""How long a client that broke the protocol may take to read why, before its connection is dropped."""


def text_frame(*lines: bytes) -> bytes:
    """One unmasked text frame of newline-separated lines."""
    return Frame(Opcode.TEXT, b"\n".join(lines)).serialize(mask=False)


def _select_subprotocol(_protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    return choose_subprotocol(offered)


def _combined(headers: Headers, name: str) -> str | None:
    """All values of a header as one (RFC 9110 §5.3), or None if there is none."""
    values = headers.get_all(name)
    return ", ".join(values) if values else None


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


class RawFraming:
    """Messages of a channel as one text frame: built once, written to every subscriber as it is."""

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> bytes:
        """Return the frame."""
        return text_frame(*(JSON.wrap_push(message.encoded(JSON)) for message in messages))


RAW_FRAMING = RawFraming()


class WebSocketConnection(asyncio.Protocol):
    """One WebSocket connection.

        handshake --accepted--> open --close()--> closed --answered, or too late--> lost
                                  |                  ^
                                  +--> finishing ----+

    It is finishing once the client has closed or broken the protocol: the commands before that are answered
    first. Once it is closed, its close frame is written and no message follows.

    `server_connections` is the server's own set of open protocols; the connection is in it from
    `connection_made` to `connection_lost`, and the server calls `shutdown` on each that is left.
    """

    __slots__ = (
        "_abort_timer",
        "_connections",
        "_fragments",
        "_has_closed",
        "_is_accepted",
        "_is_finishing",
        "_is_paused",
        "_opcode",
        "_protocol",
        "_server_connections",
        "_transport",
        "_uses_ping_frames",
        "session",
        "write",
    )

    codec = JSON
    framing = RAW_FRAMING
    transport_name = "websocket"

    def __init__(self, connections: Connections, server_connections: set[Any]) -> None:
        self._connections = connections
        self._server_connections = server_connections
        self._protocol = ServerProtocol(
            max_size=connections.limits.message_bytes,
            select_subprotocol=_select_subprotocol,
            logger=_LOGGER,
        )
        self._fragments = bytearray()
        self._opcode = Opcode.TEXT
        self._uses_ping_frames = False
        self._is_paused = False
        self._is_accepted = False
        self._is_finishing = False
        self._has_closed = False
        self._abort_timer: asyncio.TimerHandle | None = None
        self.session = connections.new_session()

    # --------------------------------------------------------------------------------- asyncio and the server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from HTTP."""
        self._transport = cast("asyncio.Transport", transport)
        self._limit_queue()
        self.write: Callable[[bytes], object] = self._transport.write
        self._server_connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """End the session, which unsubscribes from its channels."""
        self._server_connections.discard(self)
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        self._connections.handle_event(self, events.ConnectionLost())

    def pause_writing(self) -> None:
        """Close a slow client: more is queued than the limit allows.

        The transport calls this in the middle of a write, so the event waits for the next turn of the loop.
        """
        slow = events.ServerDisconnect(errors.SLOW)
        asyncio.get_running_loop().call_soon(self._connections.handle_event, self, slow)

    def shutdown(self) -> None:
        """Close because the server stops."""
        self._connections.handle_event(self, events.ServerDisconnect(errors.SHUTDOWN))

    def data_received(self, data: bytes) -> None:
        """Feed the protocol, take its events, write its answers; finish if the client has closed."""
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._answer_handshake(event)
            elif not self._take_frame(cast("Frame", event)):
                break
        if protocol.state is State.OPEN or self._has_closed:
            self._flush()
        else:  # the client closed or broke the protocol; its commands before that are answered first
            self._is_finishing = True
            self._finish_if_idle()
            if not self._has_closed:
                self._abort_after(CLOSE_REPLY_SECONDS)

    def eof_received(self) -> None:
        """Note that the client sends nothing further; asyncio then closes the transport."""
        self._protocol.receive_eof()

    # ---------------------------------------------------------------------------------------------- handshake

    def _answer_handshake(self, request: Request) -> None:
        protocol, headers = self._protocol, request.headers
        # RFC 6454 §7.3 allows one origin. Several, combined, match only "*", and then `accept` rejects them
        origin, host = _combined(headers, "Origin"), _combined(headers, "Host") or ""
        if not is_allowed(origin, host, self._connections.limits.allowed_origins):
            protocol.send_response(protocol.reject(403, f"{ORIGIN_REFUSED}\n"))
            return
        protocol.send_response(protocol.accept(request))
        if protocol.state is State.OPEN:
            self._open(request)

    def _open(self, request: Request) -> None:
        self._is_accepted = True
        self._flush()
        offered = (_combined(request.headers, "Sec-WebSocket-Protocol") or "").split(",")
        handshake = Handshake.read(urlsplit(request.path).query, [name.strip() for name in offered])
        if handshake.uses_ping_frames:
            self._uses_ping_frames = True
            self.session = self._connections.new_session(announces_pings=False)
        self._connections.attach(self)
        if handshake.disconnect is not None:
            self._connections.handle_event(self, events.ServerDisconnect(handshake.disconnect))

    # ------------------------------------------------------------------------------------------------ reading

    def _take_frame(self, frame: Frame) -> bool:
        """Take one frame; False if the frames after it must be ignored."""
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._opcode = frame.opcode
        if frame.opcode is Opcode.PONG and self._uses_ping_frames and self.session.awaits_pong:
            self._connections.handle_event(self, events.Received([PONG]))
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return True
        if frame.fin and not self._fragments:
            return self._take_message(bytes(frame.data))
        # Joined at once: `max_size` bounds the bytes of a message, not the number of its fragments
        self._fragments += frame.data
        if not frame.fin:
            return True
        message = bytes(self._fragments)
        self._fragments.clear()
        return self._take_message(message)

    def _take_message(self, message: bytes) -> bool:
        if self._opcode is Opcode.TEXT and not _is_utf8(message):  # RFC 6455 §8.1
            self._protocol.fail(CloseCode.INVALID_DATA, "text is not UTF-8")
            return False
        self._connections.receive(self, message)
        return True

    def pause_reading(self, is_busy: bool) -> None:
        """Stop reading while the session has a backlog; read again once it has none."""
        if is_busy != self._is_paused and not self._transport.is_closing():
            self._is_paused = is_busy
            if is_busy:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        if self._is_finishing:
            asyncio.get_running_loop().call_soon(self._finish_if_idle)

    # ------------------------------------------------------------------------------------------------ writing

    @property
    def queued_bytes(self) -> int:
        """How many bytes the transport's write buffer holds."""
        return self._transport.get_write_buffer_size()

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Write the session's messages as one frame.

        A frame larger than the queue limit, such as a long recovery, raises the limit by its size: a client
        disconnected for it would only recover the same again.
        """
        if self._uses_ping_frames and any(isinstance(message, Ping) for message in messages):
            self._protocol.send_ping(b"")
            self._flush()
            messages = [message for message in messages if not isinstance(message, Ping)]
        if messages and self._is_accepted and not self._has_closed:
            frame = text_frame(*map(JSON.encode, messages))
            if len(frame) > self._connections.limits.queue_bytes:
                self._limit_queue(exempt_bytes=len(frame))
            self._transport.write(frame)
            self._connections.count_sent(len(frame))

    def _limit_queue(self, exempt_bytes: int = 0) -> None:
        limit = self._connections.limits.queue_bytes
        self._transport.set_write_buffer_limits(high=limit + exempt_bytes, low=limit // 4)

    def _flush(self) -> None:
        """Write what the protocol has to send: the handshake's response, pongs, close frames."""
        if self._transport.is_closing():
            return
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._end_writing()
        if self._protocol.close_expected():
            self._abort_after(CLOSE_REPLY_SECONDS)

    # ------------------------------------------------------------------------------------------------ closing

    def close(self, disconnect: Disconnect) -> None:
        """Write the close frame after what is queued. Unless it is answered in time, drop the connection."""
        if self._has_closed:
            return
        self._has_closed = True
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(disconnect.code, disconnect.reason)
            self._flush()
        elif not self._transport.is_closing():
            # The protocol has read on, and its answer concerns what came later. The first reason counts
            self._protocol.data_to_send()
            close_frame = Frame(Opcode.CLOSE, Close(disconnect.code, disconnect.reason).serialize())
            self._transport.write(close_frame.serialize(mask=False))
            self._end_writing()
        self._abort_after(CLOSE_REPLY_SECONDS)
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def _finish_if_idle(self) -> None:
        """Answer the client's close frame, once every command before it is answered."""
        if self._is_finishing and not self._has_closed and not self.session.is_busy:
            self._has_closed = True
            self._flush()
            self._connections.handle_event(self, events.ConnectionLost())

    def _end_writing(self) -> None:
        """Close the transport, unless the client still sends: a reset would discard what it has not read."""
        if self._protocol.close_rcvd is None and self._is_accepted:
            self._abort_after(LINGER_SECONDS)
        else:
            self._transport.close()

    def _abort_after(self, seconds: float) -> None:
        if self._abort_timer is None:
            loop = asyncio.get_running_loop()
            self._abort_timer = loop.call_later(seconds, self._transport.abort)
