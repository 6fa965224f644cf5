"""Peers without a transport, which remember what they hear, and a log without an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from tocsin_server.core.channel import Channel, ChannelMessage
from tocsin_server.core.positions import History
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position, Publication


class Offsets:
    """Packs publications as their offsets and other pushes as their lines, for tests to read."""

    def pack(self, _channel: str, items: Sequence[ChannelMessage]) -> list[int | bytes]:
        """One payload: what an `Ear` remembers."""
        return [
            item.push.pub.offset if item.push.pub else JSON.wrap_push(item.encoded(JSON)) for item in items
        ]


OFFSETS = Offsets()


class RecordingConnection:
    """A peer: `heard` in order, and `writes`, how many payloads that took."""

    def __init__(self, framing: Offsets = OFFSETS) -> None:
        self.framing = framing
        self.heard: list[int | bytes] = []
        self.writes = 0

    @property
    def write(self) -> Callable[[Any], object]:
        """Where a channel writes to."""
        return self._hear

    def _hear(self, payload: list[int | bytes]) -> None:
        self.heard += payload
        self.writes += 1


class Log:
    """What an engine keeps of one channel: at most `size` publications, and the top."""

    def __init__(self, size: int = 1_000, epoch: str = "abcdefgh") -> None:
        self.size = size
        self.epoch = epoch
        self.kept: list[Publication] = []
        self.top = 0

    def append(self) -> Publication:
        """The next publication, whose data is its offset."""
        self.top += 1
        publication = Publication(Raw(b"%d" % self.top), self.top)
        self.kept = [*self.kept, publication][-self.size :]
        return publication

    def read(self, since: int = 0) -> History:
        """The top, and what is kept after `since`."""
        missed = [publication for publication in self.kept if publication.offset > since]
        return History(Position(self.top, self.epoch), missed)


def write_all(channel: Channel[Any]) -> None:
    """Write whatever waits."""
    while channel.has_queued:
        batch = channel.take_batch()
        for framing, members, items in batch.recipients:
            payload = framing.pack(channel.name, items)
            for member in members:
                member.write(payload)
