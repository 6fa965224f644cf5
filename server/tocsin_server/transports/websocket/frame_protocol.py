"""`websockets`' sans-I/O protocol of one open connection: it reads frames, and answers pings and closes.

It begins after the handshake, which the HTTP parser and `opening` have done. The mutable state is that of the
protocol and of its reader; the connection feeds them.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Generator, Sequence
from typing import cast

from websockets.extensions import Extension
from websockets.frames import CloseCode, Frame, Opcode, apply_mask  # type: ignore[attr-defined]  # in C, if it is built
from websockets.protocol import Protocol, Side, State
from websockets.streams import StreamReader

from tocsin_server.transports.websocket.compression import TURN_BYTES

FRAMES_PER_TURN = 16
"""How many frames of a connection are read in one turn of the event loop: some 0.2 ms if they are empty.

One read from a socket has up to 256 KiB, which are 43,000 empty frames.
"""

_WHOLE_MESSAGES = {0x80 | opcode: opcode for opcode in (Opcode.TEXT, Opcode.BINARY)}
"""The opcode of a whole message without extensions, by its first byte (RFC 6455 §5.2)."""

_WHOLE_TEXT = 0x80 | Opcode.TEXT

_HEAD_BYTES = 6
"""The head of a short frame from a client: two bytes, and a mask of four."""

_OPEN = State.OPEN

_LOGGER = logging.getLogger(__name__)
_LOGGER.setLevel(logging.WARNING)  # the protocol logs every connection that ends


def whole_message(data: bytes, max_size: int) -> bytes | None:
    """Return the message that these bytes are the one frame of, as nearly all reads are. None: another case.

    The frame must have no extension, and a text must be UTF-8 (RFC 6455 §8.1).
    """
    if len(data) < _HEAD_BYTES:
        return None
    first, length, start = data[0], data[1] - 0x80, _HEAD_BYTES
    if first not in _WHOLE_MESSAGES or length < 0:
        return None
    if length == 126:
        length, start = data[2] << 8 | data[3], _HEAD_BYTES + 2
    if length == 127 or len(data) != start + length or length > max_size:
        return None
    message = apply_mask(data[start:], data[start - 4 : start])
    if first == _WHOLE_TEXT:
        try:
            message.decode()
        except UnicodeDecodeError:
            return None
    return message


class FrameReader(StreamReader):
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
        while True:
            if self.frames_left > 0:
                if self.buffer:
                    self.frames_left -= 1
                    self.is_in_frame = True
                    return False
                if self.eof:
                    return True
            yield

    def count_inflated(self, size: int) -> None:
        """Let the turn end sooner after bytes that a small frame was inflated to."""
        self.frames_left = max(0, self.frames_left - size / TURN_BYTES)

    @property
    def has_unread_frames(self) -> bool:
        """Whether bytes wait for the next turn."""
        return self.frames_left <= 0 and bool(self.buffer)


class FrameProtocol(Protocol):
    """`websockets`' protocol of a server, open from the beginning, which reads frames by turns.

    What all connections begin with are attributes of the class, which costs less time and memory than to set
    all of them for each.
    """

    frames: FrameReader
    max_message_size: int

    def __init__(self, max_size: int, extensions: Sequence[Extension] = ()) -> None:  # not the inherited one
        self.max_message_size = max_size
        if extensions:
            self.extensions = list(extensions)
        self.reader = self.frames = FrameReader()
        self.events: list[Frame] = []  # type: ignore[assignment]  # no request follows the handshake
        self.writes = []
        self.parser = self.parse()
        next(self.parser)

    def read(self, data: bytes) -> list[Frame]:
        """Read what has arrived, and return the frames of this turn."""
        frame = self._only_frame(data)
        if frame is not None:
            return [frame]
        self.receive_data(data)
        received, self.events = self.events, []
        return received

    def _only_frame(self, data: bytes) -> Frame | None:
        """Return the frame of one whole message. `websockets` reads all others."""
        message = whole_message(data, self.max_message_size)
        if message is None:
            return None
        reader = self.frames
        is_between_frames = not (reader.buffer or reader.is_in_frame or reader.eof)
        if not is_between_frames or self.current_size is not None:
            return None
        if self.extensions or self.state is not _OPEN:
            return None
        return Frame(_WHOLE_MESSAGES[data[0]], message)

    def fail_after(self, code: CloseCode, reason: str) -> None:
        """Fail the connection for the frame that is being taken (RFC 6455 §7.1.7).

        The protocol has read on. Its answers to what follows in the same read, such as to a close frame, are
        not sent: those to what came before have been taken.
        """
        self.writes = []
        self.close_rcvd = self.close_sent = self.close_rcvd_then_sent = None
        self.eof_sent = False
        self.state = _OPEN
        self.fail(code, reason)

    def release_cycles(self) -> None:
        """Read no further. This object is then freed without the garbage collector.

        The parser refers to it, and so does the traceback of what was wrong.
        """
        self.parser = cast("Generator[None]", itertools.repeat(None))
        self.parser_exc = None


for _name, _value in vars(Protocol(Side.SERVER, logger=_LOGGER)).items():
    if _name not in ("reader", "events", "writes", "parser"):
        setattr(FrameProtocol, _name, _value)
