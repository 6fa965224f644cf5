"""Frames of a client become messages: fragments are joined, and what a client sends besides is limited.

A connection makes a `MessageReader` for the first frame that is not a whole message. The mutable state is
that of `MessageReader` and of its sans-I/O protocol; only the connection and a message's timer change it.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from websockets.frames import CloseCode, Frame, Opcode

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.rate_limit import NEVER_USED, RateLimit
from tocsin_server.errors import Disconnect
from tocsin_server.node.connection import Connection
from tocsin_server.protocol.messages import PONG
from tocsin_server.transports.websocket.frame_protocol import FrameProtocol

if TYPE_CHECKING:
    from tocsin_server.node.connection import Connections
    from tocsin_server.transports.websocket.compression import Inflation

DISCARD_RATE = RateLimit(262_144, 2_097_152)
"""How many bytes a second, and at once, are discarded of a client that has broken the protocol.

So its end is noticed. A client that sends more is read no further: it could take all time of the node.
"""

COUNTED_BYTES = 4096
"""So many bytes of a frame count as one more frame, once the connection is closed."""

MESSAGE_TIMEOUT = Disconnect(int(CloseCode.POLICY_VIOLATION), "message timeout")
"""A message was begun and did not arrive as a whole in time."""

_TEXT, _BINARY = Opcode.TEXT, Opcode.BINARY
_MESSAGE_OPCODES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

_PONG_HEAD = bytes((0x80 | Opcode.PONG,))


class FrameReceiver(Connection, Protocol):
    """The connection whose frames are read."""

    @property
    def has_closed(self) -> bool:
        """Whether its close frame is written."""

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read from its socket now."""

    @property
    def ping_payload(self) -> bytes | None:
        """The payload of the last ping frame; None if the client gets none."""

    def write_control(self, data: bytes) -> None:
        """Write what is no message of the session, unless the transport closes."""

    def refuse_input(self, why: Disconnect) -> None:
        """Close, and read nothing further."""


class MessageReader:
    """Reads the frames of one connection. `release` must follow when it is lost."""

    __slots__ = (
        "_connections",
        "_fragments",
        "_frames_full_at",
        "_inflation",
        "_message_since",
        "_message_timer",
        "_opcode",
        "_receiver",
        "protocol",
    )

    def __init__(
        self, connections: Connections, receiver: FrameReceiver, inflation: Inflation | None
    ) -> None:
        """`inflation` is what inflates messages, if compression was negotiated."""
        size = connections.limits.message_bytes
        self._connections = connections
        self._receiver = receiver
        self._inflation = inflation
        self.protocol = FrameProtocol(size) if inflation is None else FrameProtocol(size, [inflation])
        """What reads all frames, and makes control frames."""
        if inflation is not None:
            inflation.on_inflated = self.protocol.frames.count_inflated
        self._fragments = bytearray()
        self._opcode = _TEXT
        self._frames_full_at = NEVER_USED
        self._message_since = 0.0
        self._message_timer: asyncio.TimerHandle | None = None

    def release(self) -> None:
        """Read no further. The objects are then freed without the garbage collector."""
        if self._message_timer is not None:
            self._message_timer.cancel()
        self.protocol.release_cycles()

    def read(self, data: bytes, frame_count: int) -> None:
        """Take the next frames of what has arrived, at most `frame_count`."""
        protocol, frames = self.protocol, self.protocol.frames
        frames.frames_left = frame_count
        for frame in protocol.read(data):
            if not self._take_frame(frame):
                break

    def watch_message(self) -> None:
        """Limit the time that a message may take from its first byte to its last."""
        if self.protocol.current_size is None and not self.protocol.frames.is_in_frame:
            self._message_since = 0.0
        elif not self._message_since:
            self._message_since = time.monotonic()
            if self._message_timer is None:
                self._start_message_timer(self._connections.limits.message_seconds)

    def may_discard(self, size: int) -> bool:
        """Whether so many bytes are discarded of a client that has broken the protocol."""
        full_at = DISCARD_RATE.take(self._frames_full_at, time.monotonic(), size)
        if full_at is not None:
            self._frames_full_at = full_at
        return full_at is not None

    # ------------------------------------------------------------------------------------------------- frames

    def _take_frame(self, frame: Frame) -> bool:
        """Take one frame; False if the frames after it must be ignored."""
        has_closed = self._receiver.has_closed
        if (
            (frame.opcode is _TEXT or frame.opcode is _BINARY)
            and frame.fin
            and self._inflation is None
            and not has_closed
        ):  # a whole message, as nearly every frame is
            self._opcode = frame.opcode
            return self._take_message(bytes(frame.data))
        is_of_message = frame.opcode in _MESSAGE_OPCODES
        is_whole_message = is_of_message and frame.fin and not self._fragments and frame.opcode != Opcode.CONT
        is_free = (is_whole_message and not has_closed) or frame.opcode is Opcode.CLOSE
        amount = 0 if is_free else 1 + (len(frame.data) // COUNTED_BYTES if has_closed else 0)
        if self._inflation is not None:
            amount += self._inflation.take_excess_frames()
        if amount and not self._may_send_frames(amount):
            return False
        if is_of_message and has_closed:
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
        if self.protocol.current_size is None:
            self._message_since = 0.0
        if frame.opcode is Opcode.PING:
            self._write_pong()
        if frame.opcode is Opcode.PONG and self._is_awaited(frame):
            self._connections.handle_event(self._receiver, events.Received([PONG]))

    def _is_awaited(self, pong: Frame) -> bool:
        return self._receiver.session.awaits_pong and pong.data == self._receiver.ping_payload

    def _write_pong(self) -> None:
        """Write the protocol's answer to a ping before the replies to what follows the ping."""
        writes = self.protocol.writes
        if writes and writes[0][:1] == _PONG_HEAD:
            self._receiver.write_control(writes.pop(0))

    def _may_send_frames(self, amount: int) -> bool:
        """Count frames that are no commands: pings, pongs and fragments. Close if there are too many.

        Once the connection is closed, every frame counts, and a large one several times: only the client's
        close frame is awaited, behind what it sent before it knew. What a message was inflated to beyond
        INFLATED_RATIO counts too.
        """
        full_at = self._connections.limits.frame_rate.take(self._frames_full_at, time.monotonic(), amount)
        if full_at is None:
            receiver = self._receiver
            if not receiver.has_closed:
                self._connections.limit_reached("client.frame_rate", client=receiver.session.client)
            receiver.refuse_input(errors.RATE_LIMITED)
            return False
        self._frames_full_at = full_at
        return True

    def _take_message(self, message: bytes) -> bool:
        self._message_since = 0.0
        if self._opcode is _TEXT:  # RFC 6455 §8.1
            try:
                message.decode()
            except UnicodeDecodeError:
                self.protocol.fail_after(CloseCode.INVALID_DATA, "text is not UTF-8")
                return False
        self._connections.receive(self._receiver, message)
        return True

    # --------------------------------------------------------------------------------------------------- time

    def _start_message_timer(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._message_timer = loop.call_later(seconds, self._check_message)

    def _check_message(self) -> None:
        """Close if the message has taken too long. A later message, or this node, may be why it has not."""
        self._message_timer = None
        receiver = self._receiver
        if not self._message_since or receiver.has_closed:
            return
        seconds = self._connections.limits.message_seconds
        left = self._message_since + seconds - time.monotonic()
        if left > 0 or receiver.is_paused:
            self._start_message_timer(left if left > 0 else seconds)
            return
        self._connections.limit_reached("client.message_timeout", client=receiver.session.client)
        receiver.refuse_input(MESSAGE_TIMEOUT)
