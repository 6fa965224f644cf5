"""What a channel delivers to its subscribers, and the forms in which they get it.

Each message is encoded at most once per form and codec, on first use. Messages are shared by all subscribers.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct, structs

from tocsin_server.core.fossil import encode_delta
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.messages import Push
from tocsin_server.protocol.payloads import Payload, PayloadNotJson


class ChannelMessage(Struct, eq=False):
    """A push to a channel's subscribers. Its encoding is made on first use and kept, per codec."""

    push: Push
    epoch: str = ""
    """The epoch of the publication's offset; empty where no history holds it."""
    published_at: float = 0.0
    """Monotonic seconds, 0 if unknown."""
    may_be_delta: bool = False
    """Whether its publisher or its namespace permits to deliver it as a delta."""
    _codec: Codec | None = None  # the first codec that was used, and its encoding
    _encoding: bytes = b""
    _others: dict[Codec, bytes] | None = None
    _base: Payload | None = None  # the data of the channel's publication before this one, if known
    _quoted: ChannelMessage | None = None
    _delta: ChannelMessage | None = None

    @property
    def size(self) -> int:
        """The payload's approximate size in bytes, for limits."""
        return self.push.size

    @property
    def is_publication(self) -> bool:
        """Whether every subscriber gets it; joins and leaves go only to subscribers that receive joins."""
        return self.push.pub is not None

    def encoded(self, codec: Codec) -> bytes:
        """Return the push without its envelope, encoded at most once per codec. Raises PayloadNotJson."""
        if self._codec is codec:
            return self._encoding
        if self._codec is None:
            self._codec, self._encoding = codec, self._encode(codec)
            return self._encoding
        if self._others is None:
            self._others = {}
        if codec not in self._others:
            self._others[codec] = self._encode(codec)
        return self._others[codec]

    def _encode(self, codec: Codec) -> bytes:
        return codec.encode_push(self.push)

    def follow(self, base: Payload | None) -> Payload | None:
        """Let deltas be made from `base`, the data of the publication before. Returns the next base.

        A join or leave has no data, and returns `base` itself.
        """
        publication = self.push.pub
        if publication is None:
            return base
        if self.may_be_delta:
            self._base = base
        return publication.data

    @property
    def quoted(self) -> ChannelMessage:
        """The whole publication, for a subscriber with deltas. Joins and leaves are the same for all."""
        publication = self.push.pub
        if publication is None:
            return self
        if self._quoted is None:
            self._quoted = _Quoted.of(self)
        return self._quoted

    @property
    def delta(self) -> ChannelMessage:
        """The publication as a delta to the one before; the whole of it where no delta is smaller.

        Only for subscribers that have exactly the publication before.
        """
        publication = self.push.pub
        if publication is None:
            return self
        if self._delta is None:
            self._delta = self.quoted if self._base is None else _Quoted.of(self, self._base)
        return self._delta


class _Quoted(ChannelMessage, eq=False):
    """A publication for subscribers with deltas: its data is quoted, and a delta if there is a base."""

    @classmethod
    def of(cls, original: ChannelMessage, base: Payload | None = None) -> _Quoted:
        """The same publication in this form."""
        return cls(original.push, original.epoch, original.published_at, _base=base)

    def _encode(self, codec: Codec) -> bytes:
        publication = self.push.pub
        if publication is None:  # `quoted` and `delta` make this object of publications only
            return codec.encode_push(self.push)
        data = codec.payload_bytes(publication.data)
        delta = None if self._base is None else _delta(codec, self._base, data)
        quoted = codec.quote(data if delta is None else delta)
        return codec.encode_push(
            Push(self.push.channel, pub=structs.replace(publication, data=quoted, delta=delta is not None))
        )


def _delta(codec: Codec, base: Payload, data: bytes) -> bytes | None:
    try:
        return encode_delta(codec.payload_bytes(base), data)
    except PayloadNotJson:  # the format cannot carry the base, so its clients do not have it
        return None


def encodable(messages: Sequence[ChannelMessage], codec: Codec) -> Sequence[ChannelMessage]:
    """Return the messages before the first that a codec cannot encode."""
    for index, message in enumerate(messages):
        try:
            message.encoded(codec)
        except PayloadNotJson:
            return messages[:index]
    return messages
