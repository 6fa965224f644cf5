"""How messages follow one another in the body of a response: one way for each format.

    lines      the message, and a line break
    events     `data: `, the message, and an empty line (HTML standard, §9.2)

Encoded JSON holds no line break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tocsin_server.core.channel import ChannelMessage
from tocsin_server.protocol.codec import Codec


def lines(messages: Iterable[bytes]) -> bytes:
    """Messages as lines."""
    return b"".join([b"%b\n" % message for message in messages])


def sse_events(messages: Iterable[bytes]) -> bytes:
    """Messages as Server-Sent Events."""
    return b"".join([b"data: %b\n\n" % message for message in messages])


class StreamFraming:
    """Messages of a codec as a part of a body. `join` puts encoded messages into it."""

    def __init__(self, codec: Codec, join: Callable[[Iterable[bytes]], bytes]) -> None:
        self.codec = codec
        self.join = join

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> bytes:
        """Return the bytes, which are the same for all subscribers."""
        codec = self.codec
        return self.join([codec.wrap_push(message.encoded(codec)) for message in messages])
