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
import itertools
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from websockets.datastructures import Headers
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.core.phases import Phase
from tocsin_server.core.rate_limit import NEVER_USED, RateLimit
from tocsin_server.errors import Disconnect
from tocsin_server.node.connection import BEHIND_BYTES, CAUGHT_UP_BYTES
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import PONG, Ping, ServerMessage
from tocsin_server.protocol.protobuf.codec import PROTOBUF
from tocsin_server.protocol.unidirectional import UNIDIRECTIONAL_JSON
from tocsin_server.transports.hosts import HOST_REFUSED, names_another_site
from tocsin_server.transports.origins import ORIGIN_REFUSED, is_allowed, is_named
from tocsin_server.transports.refusals import log_refusal
from tocsin_server.transports.websocket import compression
from tocsin_server.transports.websocket.compression import TURN_BYTES, Inflation
from tocsin_server.transports.websocket.handshake import (
    HEAD_LIMIT_BYTES,
    Handshake,
    peer_address,
    proxies_of,
    recovery_refusal,
)

if TYPE_CHECKING:
    from websockets.typing import Subprotocol

    from tocsin_server.core.admission import NotAdmitted
    from tocsin_server.core.session import Session
    from tocsin_server.node.client_request import ClientRequest
    from tocsin_server.node.connection import Connections
    from tocsin_server.protocol.codec import Codec

_LOGGER = logging.getLogger(__name__)
_LOGGER.setLevel(logging.WARNING)  # the protocol logs every connection it opens

CLOSE_REPLY_SECONDS = 5.0
"""How long the client may take to answer a close frame before the connection is dropped (protocol §8)."""

DISCARD_RATE = RateLimit(262_144, 2_097_152)
"""How many bytes a second, and at once, are discarded of a client that has broken the protocol.

So its end is noticed. A client that sends more is read no further: it could take all time of the node.
"""

LINGER_SECONDS = 1.0
"""How long a client that broke the protocol may take to read why, before its connection is dropped."""

RECENT_SECONDS = 1.0
"""How long ago a large frame may have been packed that a full queue is explained by."""

COUNTED_BYTES = 4096
"""So many bytes of a frame count as one more frame, once the connection is closed."""

LARGE_FRAME_BYTES = 65_536
"""Frames above this size are remembered, since one alone may fill a queue."""

PING_BYTES = 4
"""The payload of a ping frame."""

FRAMES_PER_TURN = 16
"""How many frames of a connection are read in one turn of the event loop: some 0.2 ms if they are empty.

One read from a socket has up to 256 KiB, which are 43,000 empty frames.
"""

MESSAGE_TIMEOUT = Disconnect(int(CloseCode.POLICY_VIOLATION), "message timeout")
"""A message was begun and did not arrive as a whole in time."""

_MESSAGE_OPCODES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

_PONG_HEAD = bytes((0x80 | Opcode.PONG,))


def plain_frame(opcode: Opcode, payload: bytes) -> bytes:
    """One unmasked frame."""
    return Frame(opcode, payload).serialize(mask=False)


def _combined(headers: Headers, name: str) -> str | None:
    """All values of a header as one (RFC 9110 §5.3), or None if there is none."""
    values = headers.get_all(name)
    return ", ".join(values) if values else None


def _origin_and_host(headers: Headers) -> tuple[str | None, str]:
    """The origin of the page, if there is one, and the host that it connects to.

    RFC 6454 §7.3 allows one origin. Several, combined, match only "*", and then `accept` rejects them.
    """
    return _combined(headers, "Origin"), _combined(headers, "Host") or ""


def _handshake_of(request: Request) -> Handshake:
    offered = (_combined(request.headers, "Sec-WebSocket-Protocol") or "").split(",")
    return Handshake.read(urlsplit(request.path).query, [name.strip() for name in offered])


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_request(reader: StreamReader) -> Generator[None, None, Request]:
    """Read the request that the HTTP server has parsed, limited and written again.

    `Request.parse` has smaller limits: 8 KiB for a line and 128 headers.
    """
    request_line = yield from reader.read_line(HEAD_LIMIT_BYTES)
    method, path, version = request_line.decode("latin-1").split()
    headers = Headers()
    while line := (yield from reader.read_line(HEAD_LIMIT_BYTES)).rstrip(b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        headers.set_insecure(name, value.strip(" \t"))
    return Request(path, headers, method, version)


class _FrameReader(StreamReader):
    """Gives the protocol so many frames per turn, and the next ones once `frames_left` is set again."""

    __slots__ = ("frames_left", "is_in_frame")

    def __init__(self) -> None:
        super().__init__()
        self.frames_left: float = FRAMES_PER_TURN
        self.is_in_frame = False
        """Whether a part of a frame has arrived."""

    def at_eof(self) -> Generator[None, None, bool]:
        """Tell whether the stream has ended. The protocol asks before each frame."""
        self.is_in_frame = False
        while self.frames_left <= 0:
            yield
        is_at_end = yield from super().at_eof()
        self.frames_left -= 1
        self.is_in_frame = not is_at_end
        return is_at_end

    def count_inflated(self, size: int) -> None:
        """Let the turn end sooner after bytes that a small frame was inflated to."""
        self.frames_left = max(0, self.frames_left - size / TURN_BYTES)

    @property
    def has_unread_frames(self) -> bool:
        """Whether bytes wait for the next turn."""
        return self.frames_left <= 0 and bool(self.buffer)


class _ServerProtocol(ServerProtocol):
    """`websockets`' protocol, with the limits of the HTTP server on its request, and frames by turns."""

    frames: _FrameReader

    def parse(self) -> Generator[None]:
        self.frames = self.reader = _FrameReader()
        self.events.append((yield from _read_request(self.reader)))
        yield from Protocol.parse(self)

    def select_subprotocol(self, _offered: Sequence[Subprotocol]) -> Subprotocol | None:
        """Name none: the response names the one that the whole request chooses."""
        return None

    @property
    def is_in_message(self) -> bool:
        """Whether a part of a frame or of a message has arrived."""
        return self.frames.is_in_frame or self.current_size is not None

    def release_cycles(self) -> None:
        """Read no further. This object is then freed without the garbage collector.

        The parser refers to it, and so do the tracebacks of what was wrong.
        """
        self.parser = cast("Generator[None]", itertools.repeat(None))
        if (error := self.handshake_exc) is not None:  # the request keeps it, too
            error.__traceback__ = error.__context__ = error.__cause__ = None
        self.parser_exc = self.handshake_exc = None


class RawFraming:
    """Messages of a channel as one frame of a codec: built once, written to every subscriber as it is.

    `make_frame` makes a frame of an opcode and a payload. The mutable state is the size of the last large
    frame, and when it was packed. Only `pack` changes it.
    """

    def __init__(self, codec: Codec, make_frame: Callable[[Opcode, bytes], bytes] = plain_frame) -> None:
        self.codec = codec
        self.make_frame = make_frame
        self._opcode = Opcode.TEXT if codec.is_text else Opcode.BINARY
        self._large_bytes = 0
        self._large_at = 0.0

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> bytes:
        """Return the frame. Raises PayloadNotJson."""
        codec = self.codec
        frame = self.frame([codec.wrap_push(message.encoded(codec)) for message in messages])
        if len(frame) > LARGE_FRAME_BYTES:
            self._large_bytes = max(len(frame), self.recent_large_bytes)
            self._large_at = time.monotonic()
        return frame

    def frame(self, messages: Iterable[bytes]) -> bytes:
        """Return one frame of encoded messages."""
        return self.make_frame(self._opcode, self.codec.join(messages))

    @property
    def recent_large_bytes(self) -> int:
        """The size of the largest frame of the last second, or 0 if there was no large one."""
        return self._large_bytes if time.monotonic() - self._large_at < RECENT_SECONDS else 0


RAW_FRAMING = RawFraming(JSON)
DEFLATED_FRAMING = RawFraming(JSON, compression.frame_of)
"""For connections that negotiated compression. Their parameters agree, as far as frames are concerned."""

_FRAMINGS: Mapping[Codec, RawFraming] = {JSON: RAW_FRAMING, PROTOBUF: RawFraming(PROTOBUF)}
_DEFLATED_FRAMINGS: Mapping[Codec, RawFraming] = {
    JSON: DEFLATED_FRAMING,
    PROTOBUF: RawFraming(PROTOBUF, compression.frame_of),
}


class _UnidirectionalFraming(RawFraming):
    """Each push as a frame of its own: a client without an SDK parses a message as one JSON value."""

    def frame(self, messages: Iterable[bytes]) -> bytes:
        return b"".join([self.make_frame(Opcode.TEXT, message) for message in messages])


_UNIDIRECTIONAL_FRAMING = _UnidirectionalFraming(UNIDIRECTIONAL_JSON)
_UNIDIRECTIONAL_DEFLATED_FRAMING = _UnidirectionalFraming(UNIDIRECTIONAL_JSON, compression.frame_of)


class WebSocketConnection(asyncio.Protocol):
    """One WebSocket connection.

        handshake --accepted--> open --close()--> closed --answered, or too late--> lost
                                  |                  ^
                                  +--> finishing ----+

    It is finishing once the client has closed or broken the protocol: the commands before that are answered
    first. Once it is closed, its close frame is written and no message follows.

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
        "_fragments",
        "_frames_full_at",
        "_has_closed",
        "_ignores_input",
        "_inflation",
        "_is_accepted",
        "_is_busy",
        "_is_finishing",
        "_is_half_open",
        "_is_paused",
        "_is_reading",
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

    transport_name = "websocket"
    is_unidirectional = False
    framings = _FRAMINGS
    deflated_framings = _DEFLATED_FRAMINGS

    def __init__(self, connections: Connections, server_connections: set[Any], peer: str = "") -> None:
        self.address = peer  # that of the client, once its handshake is read
        self.request: ClientRequest | None = None
        self.framing = self.framings[JSON]  # until its handshake chooses a codec
        self._address_key: str | None = None
        self._is_half_open = False
        self._connections = connections
        self._server_connections = server_connections
        self._protocol = _ServerProtocol(
            extensions=compression.EXTENSIONS if connections.limits.compresses else None,
            max_size=connections.limits.message_bytes,
            logger=_LOGGER,
        )
        self._inflation: Inflation | None = None  # of a connection that negotiated compression
        self._fragments = bytearray()
        self._opcode = Opcode.TEXT
        self._ping_payload: bytes | None = None  # of the last ping frame; None if the client gets none
        self._frames_full_at = NEVER_USED
        self._message_since = 0.0
        self._message_timer: asyncio.TimerHandle | None = None
        self._is_busy = False
        self._is_paused = False
        self._is_reading = False
        self._ignores_input = False
        self._is_accepted = False
        self._is_finishing = False
        self._has_closed = False
        self._exempt_bytes = 0
        self._written_bytes = 0
        self.is_behind = False
        """Whether the transport still has more than BEHIND_BYTES, after it offered them to the socket."""
        self._abort_timer: asyncio.TimerHandle | None = None
        self.session = self._new_session()

    def _new_session(self, *, announces_pings: bool = True) -> Session:
        return self._connections.new_session(
            wants_pong=not (self.is_unidirectional and announces_pings),
            announces_pings=announces_pings,
            is_unidirectional=self.is_unidirectional,
        )

    # --------------------------------------------------------------------------------- asyncio and the server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over from HTTP."""
        self._transport = cast("asyncio.Transport", transport)
        high = min(BEHIND_BYTES, self._connections.limits.queue_bytes)
        self._transport.set_write_buffer_limits(high=high, low=min(CAUGHT_UP_BYTES, high))
        self.write: Callable[[bytes], object] = self._transport.write
        self._server_connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """End the session, which unsubscribes from its channels."""
        self._server_connections.discard(self)
        for timer in (self._abort_timer, self._message_timer):
            if timer is not None:
                timer.cancel()
        self._connections.handle_event(self, events.ConnectionLost())
        self.is_behind = False
        self._connections.client_caught_up(self)
        self._connections.half_open.remove(self)
        if self._address_key is not None:
            self._connections.admission.leave(self._address_key)
            self._address_key = None
        self._protocol.release_cycles()

    def drop_half_open(self, limit: str) -> None:
        """Close because newer connections wait for their connect command."""
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
        """Write what is no message of the session: a response, pongs, close frames."""
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
        self._connections.handle_event(self, events.ServerDisconnect(errors.SHUTDOWN))

    def data_received(self, data: bytes) -> None:
        """Read the first frames; those that are left have a later turn."""
        if self._is_finishing and not self._may_discard(len(data)):
            self._ignores_input = True
            self._update_reading()
        if not self._ignores_input:
            self._read(data)

    def _may_discard(self, size: int) -> bool:
        full_at = DISCARD_RATE.take(self._frames_full_at, time.monotonic(), size)
        if full_at is not None:
            self._frames_full_at = full_at
        return full_at is not None

    def _read(self, data: bytes) -> None:
        """Feed the protocol, take its events, write its answers; finish if the client has closed."""
        protocol = self._protocol
        self._is_reading = True
        protocol.frames.frames_left = FRAMES_PER_TURN
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._answer_handshake(event)
            elif not self._take_frame(cast("Frame", event)):
                break
        self._is_reading = False
        self._update_reading()
        self._watch_message()
        if protocol.state is State.OPEN or self._has_closed:
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
        is_over = self._ignores_input or self._transport.is_closing() or self._protocol.reader.eof
        if not is_over and not self._is_busy:
            self._read(b"")

    def _log_failure(self) -> None:
        """Log that the client broke the protocol, such as with a message that is too large."""
        sent = self._protocol.close_sent
        if sent is not None and self._protocol.close_rcvd is None and not self._is_finishing:
            client, code = self.session.client, int(sent.code)
            self._connections.log_refusal("protocol_broken", client=client, code=code, reason=sent.reason)

    def eof_received(self) -> None:
        """Note that the client sends nothing further; asyncio then closes the transport.

        Frames are only unread here over TLS: elsewhere no end is read while reading is paused.
        """
        frames = self._protocol.frames
        if frames.has_unread_frames:
            frames.discard()
        frames.frames_left = FRAMES_PER_TURN
        self._protocol.receive_eof()

    # ---------------------------------------------------------------------------------------------- handshake

    def _answer_handshake(self, request: Request) -> None:
        protocol = self._protocol
        proxies = proxies_of(self._connections.settings.server)
        if proxies is None:
            self.address = peer_address(self.address)
        else:
            self.address = proxies.client_of(self.address, request.headers.get_all).address
        refused = self._refusal(request)
        response = protocol.reject(refused[0], f"{refused[1]}\n") if refused else protocol.accept(request)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS and (no := self._admit()):
            response = protocol.reject(HTTPStatus.SERVICE_UNAVAILABLE, f"{no.reason}\n")
            response.headers["Retry-After"] = str(no.retry_after)
        handshake = _handshake_of(request)
        if handshake.subprotocol is not None and response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            response.headers["Sec-WebSocket-Protocol"] = handshake.subprotocol
        protocol.send_response(response)
        if protocol.state is State.OPEN:
            self._open(handshake, request)
        else:
            reason = (response.body or b"").decode().strip()
            log_refusal(self._connections, self.transport_name, response.status_code, reason, self.address)

    def _admit(self) -> NotAdmitted | None:
        """Count the connection in, or return why it is refused."""
        key = self._connections.admission.key_of(self.address)
        refused = self._connections.admit(key)
        if refused is None:
            self._address_key = key
        return refused

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        """The status and reason of a refusal, apart from those of the protocol itself."""
        headers = request.headers
        origin, host = _origin_and_host(headers)
        if not is_allowed(origin, host, self._connections.limits.allowed_origins):
            return 403, ORIGIN_REFUSED
        if self._connections.limits.checks_host and names_another_site(
            host, self._connections.limits.allowed_origins
        ):
            return 403, HOST_REFUSED
        if not set(headers.get_all("Content-Length")) <= {"0"} or "Transfer-Encoding" in headers:
            return 400, "A WebSocket handshake has no body."
        if sentence := recovery_refusal(urlsplit(request.path).query, headers):
            return 400, sentence
        return None

    def _open(self, handshake: Handshake, request: Request) -> None:
        self._is_accepted = True
        self._flush()
        self.framing = self.framings[handshake.codec]
        if self._protocol.extensions:
            self._inflation = cast("Inflation", self._protocol.extensions[0])
            self._inflation.on_inflated = self._protocol.frames.count_inflated
            self.framing = self.deflated_framings[handshake.codec]
        if handshake.uses_ping_frames:
            self._ping_payload = b""
            self.session = self._new_session(announces_pings=False)
        if (kept := self._connections.kept_headers) is not None:
            query = urlsplit(request.path).query
            headers = request.headers.raw_items()
            origin, host = _origin_and_host(request.headers)
            self.request = kept.request(
                self.transport_name,
                handshake.codec.name,
                self.address,
                headers,
                query,
                cookies_count=is_named(origin, host, self._connections.limits.allowed_origins),
            )
        self._connections.attach(self)
        self._is_half_open = True
        self._connections.half_open.add(self, self._address_key or "")
        if why := handshake.disconnect_of(is_unidirectional=self.is_unidirectional):
            self._connections.handle_event(self, events.ServerDisconnect(why))

    # ------------------------------------------------------------------------------------------------ reading

    def _take_frame(self, frame: Frame) -> bool:
        """Take one frame; False if the frames after it must be ignored."""
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
        self._fragments += frame.data
        if not frame.fin:
            return True
        message = bytes(self._fragments)
        self._fragments.clear()
        return self._take_message(message)

    def _take_control_frame(self, frame: Frame) -> None:
        if self._protocol.current_size is None:
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
        self._protocol.frames.discard()
        self._update_reading()
        if not self._transport.is_closing():
            self._end_writing()

    def _watch_message(self) -> None:
        """Limit the time that a message may take from its first byte to its last."""
        if not self._protocol.is_in_message:
            self._message_since = 0.0
        elif not self._message_since:
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
        writes = self._protocol.writes
        if writes and writes[0][:1] == _PONG_HEAD and not self._transport.is_closing():
            self._write_control(writes.pop(0))

    def _take_message(self, message: bytes) -> bool:
        self._message_since = 0.0
        if self._opcode is Opcode.TEXT and not _is_utf8(message):  # RFC 6455 §8.1
            self._protocol.fail(CloseCode.INVALID_DATA, "text is not UTF-8")
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
        has_unread = self._protocol.frames.has_unread_frames and not self._ignores_input
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
        if self._is_half_open and self.session.phase is Phase.CONNECTED:
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
            self._protocol.send_ping(self._ping_payload)
            self._flush()
        if frame and self._is_accepted and not self._has_closed:
            if len(frame) > LARGE_FRAME_BYTES and not self.is_behind:
                self._exempt_bytes = max(len(frame), self._exempt_bytes)
            self.write(frame)
            self._connections.count_sent(len(frame))
            if not self.is_behind:
                self._exempt_bytes = 0

    def _flush(self) -> None:
        """Write what the protocol has to send: the handshake's response, pongs, close frames."""
        if self._transport.is_closing():
            return
        for data in self._protocol.data_to_send():
            if data:
                self._write_control(data)
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
        if self._protocol.close_rcvd is None and self._is_accepted:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._abort_after(LINGER_SECONDS)
        else:
            self._transport.close()

    def _abort_after(self, seconds: float) -> None:
        if self._abort_timer is None:
            loop = asyncio.get_running_loop()
            self._abort_timer = loop.call_later(seconds, self._transport.abort)


class UnidirectionalWebSocketConnection(WebSocketConnection):
    """A connection whose client sends one connect request, and gets pushes alone (protocol §16)."""

    __slots__ = ()

    transport_name = "uni_websocket"
    is_unidirectional = True
    framings = dict.fromkeys(_FRAMINGS, _UNIDIRECTIONAL_FRAMING)
    deflated_framings = dict.fromkeys(_FRAMINGS, _UNIDIRECTIONAL_DEFLATED_FRAMING)
