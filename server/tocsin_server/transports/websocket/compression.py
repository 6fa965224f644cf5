"""permessage-deflate (RFC 7692) on the raw transport, where `client.compression` is set.

Messages are compressed one by one (`server_no_context_takeover`), so that a frame is compressed once, and is
written to every connection that negotiated the extension. Clients do the same (`client_no_context_takeover`),
so that no connection keeps a window between two messages. The window of every frame is WINDOW_BITS. A client
that negotiated as much or more can read it; an offer of less is declined.

`websockets`' extension inflates what arrives, up to the limit of a message and not one byte further. What a
client lets the server inflate beyond INFLATED_RATIO counts as frames: towards the turn of its connection, and
towards `client.frame_rate`.

The module has no state. That of an `Inflation` is the bytes that are not counted yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from websockets.exceptions import NegotiationError
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.typing import ExtensionParameter

SMALLEST_BYTES = 256
"""Smaller messages are sent as they are: compressing saves less than a packet."""

LARGEST_BYTES = 131_072
"""Larger messages are sent as they are: compressing would hold up the event loop for milliseconds."""

WINDOW_BITS = 12
"""A window of 4 KiB."""

MEMORY_LEVEL = 5
LEVEL = 1

INFLATED_RATIO = 16
"""So many times its size a message may be inflated to at no cost. JSON is 3 to 10 times."""

TURN_BYTES = 32_768
"""So many inflated bytes count as one more frame of a turn."""

EXCESS_BYTES = 4096
"""So many bytes beyond INFLATED_RATIO count as one more frame towards the rate."""

_DEFLATION = PerMessageDeflate(
    remote_no_context_takeover=True,
    local_no_context_takeover=True,
    remote_max_window_bits=15,
    local_max_window_bits=WINDOW_BITS,
    compress_settings={"level": LEVEL, "memLevel": MEMORY_LEVEL},
)
"""Compresses messages. Between two of them it has no state."""


def frame_of(opcode: int, payload: bytes) -> bytes:
    """One unmasked frame, compressed if that makes it smaller."""
    frame = Frame(Opcode(opcode), payload)
    if SMALLEST_BYTES <= len(payload) <= LARGEST_BYTES:
        compressed = frame.serialize(mask=False, extensions=[_DEFLATION])
        if len(compressed) < len(payload):
            return compressed
    return frame.serialize(mask=False)


class Inflation(PerMessageDeflate):
    """The extension of one connection, which inflates its messages. `on_inflated` gets each frame's size."""

    def __init__(self, negotiated: PerMessageDeflate) -> None:
        super().__init__(
            negotiated.remote_no_context_takeover,
            negotiated.local_no_context_takeover,
            negotiated.remote_max_window_bits,
            negotiated.local_max_window_bits,
        )
        self.on_inflated: Callable[[int], None] | None = None
        self._excess_bytes = 0

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """Inflate a frame. Raises PayloadTooBig where it would have more than `max_size` bytes."""
        inflated = super().decode(frame, max_size=max_size)
        if inflated is not frame:
            size = len(inflated.data)
            self._excess_bytes += max(0, size - INFLATED_RATIO * len(frame.data))
            if self.on_inflated is not None:
                self.on_inflated(size)
        return inflated

    def take_excess_frames(self) -> int:
        """How many frames the inflated bytes count for since the last call."""
        frames, self._excess_bytes = divmod(self._excess_bytes, EXCESS_BYTES)
        return frames


class _Factory(ServerPerMessageDeflateFactory):
    """Negotiates the extension as this module needs it."""

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], Inflation]:
        """Answer one offer. Raises NegotiationError to decline it."""
        response, negotiated = super().process_request_params(params, accepted_extensions)
        if negotiated.local_max_window_bits < WINDOW_BITS:
            raise NegotiationError("the window is too small")
        return response, Inflation(negotiated)


EXTENSIONS = [_Factory(server_no_context_takeover=True, client_no_context_takeover=True)]
"""For the protocol of a connection."""
