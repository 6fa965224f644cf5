"""What travels over an event stream (HTML standard, §9.2): events as bytes, ready to be written.

The data of a publication, join or leave is the push that a WebSocket client gets, without its envelope. Only
publications are messages, so that an `onmessage` meets nothing else. JSON here holds no line break, so that
one `data:` line is enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from tocsin_server.core.channel import ChannelMessage
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position
from tocsin_server.transports.sse.last_event_id import FAREWELL, write_position

KEEP_ALIVE = b":\n\n"

_encode = msgspec.json.encode


def opening_event(places: Sequence[bytes], retry_milliseconds: int) -> bytes:
    """Where the stream begins, and when to come back after it: a browser keeps both, dispatching nothing."""
    return b"id: %b\nretry: %d\n\n" % (b",".join(places), retry_milliseconds)


def connect_event(client: str, node: str) -> bytes:
    """Who holds the stream: the connection's id, as presence shows it, and its node's name."""
    return b"event: connect\ndata: %b\n\n" % _encode({"client": client, "node": node})


def gap_event(channel: str, since: Position, to: Position, places: Sequence[bytes]) -> bytes:
    """What came after `since` and up to `to` is lost to this client; `places` are those from here on."""
    gap = {"channel": channel, "from": since._asdict(), "to": to._asdict()}
    return b"event: gap\nid: %b\ndata: %b\n\n" % (b",".join(places), _encode(gap))


def subscribe_event(channel: str) -> bytes:
    """The server made a subscription."""
    return b"event: subscribe\ndata: %b\n\n" % _encode({"channel": channel})


def unsubscribe_event(channel: str, code: int, reason: str) -> bytes:
    """The server ended a subscription for as long as this stream lasts."""
    return b"event: unsubscribe\ndata: %b\n\n" % _encode({"channel": channel, "code": code, "reason": reason})


def disconnect_event(why: Disconnect) -> bytes:
    """The last event of a stream; where nobody is to come back, with an id that keeps the client from it."""
    farewell = b"" if why.may_reconnect else b"id: %b%d\n" % (FAREWELL.encode(), why.code)
    return b"event: disconnect\n%bdata: %b\n\n" % (
        farewell,
        _encode({"code": why.code, "reason": why.reason}),
    )


class Burst:
    """Items of one channel that leave together, as events; `size` is in bytes.

    For streams of that channel alone the bytes are made once, by the first that asks; for one of several
    channels, what differs is the ids.
    """

    __slots__ = ("_alone", "_bare", "_events", "channel", "size")

    def __init__(self, channel: str, items: Sequence[ChannelMessage]) -> None:
        self.channel = channel
        self._events = [(_place(item), _event(item)) for item in items]
        self.size = sum(len(event) for _, event in self._events)
        self._alone: bytes | None = None
        self._bare: bytes | None = None

    def __len__(self) -> int:
        return self.size

    def without_ids(self) -> bytes:
        """The events for whoever is promised no position in this channel."""
        if self._bare is None:
            self._bare = b"".join(event for _, event in self._events)
        return self._bare

    def move(self, places: list[bytes], index: int) -> bytes:
        """The events for a stream at `places`, of which this channel's, at `index`, is moved on."""
        if len(places) > 1:
            return b"".join(self._moving(places, index))
        if self._alone is None:
            self._alone = b"".join(self._moving(places, index))
        for place, _ in reversed(self._events):
            if place:
                places[index] = place
                break
        return self._alone

    def _moving(self, places: list[bytes], index: int) -> Iterator[bytes]:
        for place, event in self._events:
            if place:
                places[index] = place
                yield b"id: %b\n" % b",".join(places)
            yield event


def _place(item: ChannelMessage) -> bytes:
    publication = item.push.pub
    if publication is None or not publication.has_offset:
        return b""
    return write_position(Position(publication.offset, item.epoch))


def _event(item: ChannelMessage) -> bytes:
    encoded = item.encoded(JSON)
    if item.is_publication:
        return b"data: %b\n\n" % encoded
    kind = b"leave" if item.push.join is None else b"join"
    return b"event: %b\ndata: %b\n\n" % (kind, encoded)


class BurstFraming:
    """All event streams share it: what differs between them is made from the burst when it is written."""

    def pack(self, channel: str, items: Sequence[ChannelMessage]) -> Burst:
        """Return the burst."""
        return Burst(channel, items)


BURST_FRAMING = BurstFraming()
