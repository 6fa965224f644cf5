"""How messages follow one another in the body of a response: one way for each format.

    lines      the message, and a line break
    events     `data: `, the message, and an empty line (HTML standard, §9.2)

In protobuf each message comes after its length, as in a WebSocket frame. Encoded JSON holds no line break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tocsin_server.core.channel import ChannelMessage
from tocsin_server.protocol.codec import Codec
from tocsin_server.transports.send_queue import http_chunk


def lines(messages: Iterable[bytes]) -> bytes:
    """Messages as lines."""
    return b"".join([b"%b\n" % message for message in messages])


def sse_events(messages: Iterable[bytes]) -> bytes:
    """Messages as Server-Sent Events."""
    return b"".join([b"data: %b\n\n" % message for message in messages])


class PackedMessages:
    """Messages as a part of a body, and the same as a chunk of HTTP. `len` is the size of the part."""

    __slots__ = ("body", "chunk")

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.chunk = http_chunk(body)

    def __len__(self) -> int:
        return len(self.body)


class StreamFraming:
    """Messages of a codec as a part of a body. `join` puts encoded messages into it."""

    def __init__(self, codec: Codec, join: Callable[[Iterable[bytes]], bytes]) -> None:
        self.codec = codec
        self.join = join

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> PackedMessages:
        """Return the bytes, which are the same for all subscribers. Raises PayloadNotJson."""
        codec = self.codec
        return PackedMessages(self.join([codec.wrap_push(message.encoded(codec)) for message in messages]))
