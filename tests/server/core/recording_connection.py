"""Connections that record what they receive, and a history without an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from tocsin_server.core.channel import Channel, ChannelMessage
from tocsin_server.core.positions import History
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position, Publication


class OffsetFraming:
    """Packs publications as their offsets, and other pushes as encoded lines."""

    codec = JSON

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> list[int | bytes]:
        """Return one payload, which a `RecordingConnection` records."""
        return [
            message.push.pub.offset if message.push.pub else JSON.wrap_push(message.encoded(JSON))
            for message in messages
        ]


OFFSET_FRAMING = OffsetFraming()


class RecordingConnection:
    """A connection that records what was received, in order, and counts the writes."""

    def __init__(self, framing: OffsetFraming = OFFSET_FRAMING) -> None:
        self.framing = framing
        self.received: list[int | bytes] = []
        self.writes = 0

    @property
    def write(self) -> Callable[[Any], object]:
        """What a channel calls to write."""
        return self._record

    def _record(self, payload: list[int | bytes]) -> None:
        self.received += payload
        self.writes += 1


class StoredHistory:
    """The history of one channel, as an engine stores it: at most `size` publications, and the top."""

    def __init__(self, size: int = 1_000, epoch: str = "abcdefgh") -> None:
        self.size = size
        self.epoch = epoch
        self.kept: list[Publication] = []
        self.top = 0

    def append(self, data: bytes = b"") -> Publication:
        """Return the next publication. Its data is its offset, unless other data is given."""
        self.top += 1
        publication = Publication(Raw(data or b"%d" % self.top), self.top)
        self.kept = [*self.kept, publication][-self.size :]
        return publication

    def read(self, since: int = 0) -> History:
        """Return the top, and the stored publications after `since`."""
        missed = [publication for publication in self.kept if publication.offset > since]
        return History(Position(self.top, self.epoch), missed)


def deliver_all(channel: Channel[Any]) -> None:
    """Deliver every queued message."""
    while channel.has_queued:
        batch = channel.take_batch()
        for framing, subscribers, messages in batch.recipients:
            payload = framing.pack(channel.name, messages)
            for subscriber in subscribers:
                subscriber.write(payload)
