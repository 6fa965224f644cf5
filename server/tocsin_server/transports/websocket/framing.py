"""How messages become WebSocket frames of the raw transport, for each format, with and without compression.

The mutable state is that of each `RawFraming`: what it packed last. Only its `pack` changes it.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from websockets.frames import Opcode

from tocsin_server.core.channel import ChannelMessage
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.protobuf.codec import PROTOBUF
from tocsin_server.protocol.unidirectional import UNIDIRECTIONAL_JSON
from tocsin_server.transports.websocket import compression

RECENT_SECONDS = 1.0
"""How long ago a large frame may have been packed that a full queue is explained by."""

LARGE_FRAME_BYTES = 65_536
"""Frames above this size are remembered, since one alone may fill a queue."""

SHORT_BYTES = 126
"""A payload below this size has its length in the second byte of its frame (RFC 6455 §5.2)."""

MEDIUM_BYTES = 65_536
"""A payload below this size has its length in two bytes more, a larger one in eight."""

_pack_medium = struct.Struct("!BBH").pack
_pack_large = struct.Struct("!BBQ").pack


def plain_frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked frame, final and without extensions (RFC 6455 §5.2)."""
    size = len(payload)
    if size < SHORT_BYTES:
        return bytes((0x80 | opcode, size)) + payload
    if size < MEDIUM_BYTES:
        return _pack_medium(0x80 | opcode, 126, size) + payload
    return _pack_large(0x80 | opcode, 127, size) + payload


class RawFraming:
    """Messages of a channel as one frame of a codec: built once, written to every subscriber as it is.

    `make_frame` makes a frame of an opcode and a payload. The mutable state is the size of the last large
    frame, and when it was packed. Only `pack` changes it.
    """

    def __init__(self, codec: Codec, make_frame: Callable[[int, bytes], bytes] = plain_frame) -> None:
        self.codec = codec
        self.make_frame = make_frame
        self._opcode = int(Opcode.TEXT if codec.is_text else Opcode.BINARY)
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

FRAMINGS: Mapping[Codec, RawFraming] = {JSON: RAW_FRAMING, PROTOBUF: RawFraming(PROTOBUF)}
DEFLATED_FRAMINGS: Mapping[Codec, RawFraming] = {
    JSON: DEFLATED_FRAMING,
    PROTOBUF: RawFraming(PROTOBUF, compression.frame_of),
}


class _UnidirectionalFraming(RawFraming):
    """Each push as a frame of its own: a client without an SDK parses a message as one JSON value."""

    def frame(self, messages: Iterable[bytes]) -> bytes:
        return b"".join([self.make_frame(Opcode.TEXT, message) for message in messages])


UNIDIRECTIONAL_FRAMING = _UnidirectionalFraming(UNIDIRECTIONAL_JSON)
UNIDIRECTIONAL_DEFLATED_FRAMING = _UnidirectionalFraming(UNIDIRECTIONAL_JSON, compression.frame_of)
