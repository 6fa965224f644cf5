"""What travels over an event stream (HTML standard, §9.2): events as bytes, ready to be written.

The data of a publication, join or leave is the push that a WebSocket client gets, without its envelope. Only
publications are messages, so that an `onmessage` meets nothing else. JSON here holds no line break, so that
one `data:` line is enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from tocsin_server.core.channel import Item
from tocsin_server.core.lastid import FAREWELL, write_position, write_positions
from tocsin_server.core.protocol import NO_JSON, Position
from tocsin_server.errors import Disconnect

KEEP_ALIVE = b":\n\n"

_ENVELOPE = len(b'{"push":')

_encode = msgspec.json.encode


def positions_event(positions: Sequence[Position | None]) -> bytes:
    """An id without data: the browser keeps it and dispatches nothing."""
    return b"id: %b\n\n" % write_positions(positions).encode()


def gap_event(channel: str, since: Position, to: Position, positions: Sequence[Position | None]) -> bytes:
    """What came after `since` and up to `to` is lost to this client; `positions` are those from here on."""
    gap = {"channel": channel, "from": since._asdict(), "to": to._asdict()}
    return b"event: gap\nid: %b\ndata: %b\n\n" % (write_positions(positions).encode(), _encode(gap))


def subscribe_event(channel: str) -> bytes:
    """The server made a subscription."""
    return b"event: subscribe\ndata: %b\n\n" % _encode({"channel": channel})


def unsubscribe_event(channel: str, code: int, reason: str) -> bytes:
    """The server ended a subscription for as long as this stream lasts."""
    return b"event: unsubscribe\ndata: %b\n\n" % _encode({"channel": channel, "code": code, "reason": reason})


def disconnect_event(why: Disconnect, retry_milliseconds: int) -> bytes:
    """The last event of a stream: when to come back, or an id that keeps the client from coming back."""
    advice = b"retry: %d" % retry_milliseconds
    if not why.may_reconnect:
        advice = b"id: %b%d" % (FAREWELL.encode(), why.code)
    return b"event: disconnect\n%b\ndata: %b\n\n" % (
        advice,
        _encode({"code": why.code, "reason": why.reason}),
    )


class Burst:
    """Items of one channel that leave together.

    For streams of that channel alone the bytes are made once, by the first that asks.
    """

    __slots__ = ("_alone", "_bare", "channel", "items", "size", "top")

    def __init__(self, channel: str, items: Sequence[Item]) -> None:
        self.channel = channel
        self.items = items
        self.size = sum(len(item.line) for item in items)
        self.top = next(filter(None, map(_position, reversed(items))), None)
        self._alone: bytes | None = None
        self._bare: bytes | None = None

    def bare(self) -> bytes:
        """The events for whoever is promised no position in this channel: without ids."""
        if self._bare is None:
            self._bare = b"".join(map(_bare, self.items))
        return self._bare

    def alone(self) -> bytes:
        """The events for a stream of only this channel."""
        if self._alone is None:
            self._alone = self.among([None], 0)
        return self._alone

    def among(self, positions: Sequence[Position | None], index: int) -> bytes:
        """The events for a stream of several channels at `positions`, of which this one's is at `index`."""
        before = "".join(write_position(position) + "," for position in positions[:index])
        after = "".join("," + write_position(position) for position in positions[index + 1 :])
        events: list[bytes] = []
        for item in self.items:
            position = _position(item)
            if position is not None:
                events.append(f"id: {before}{write_position(position)}{after}\n".encode())
            events.append(_bare(item))
        return b"".join(events)


def _position(item: Item) -> Position | None:
    publication = item.publication
    return Position(publication.offset, item.epoch) if publication and publication.is_logged else None


def _bare(item: Item) -> bytes:
    push = item.line[_ENVELOPE:-1]
    if item.publication is not None:
        return b"data: %b\n\n" % push
    kind = b"join" if _decode_presence(push).join else b"leave"
    return b"event: %b\ndata: %b\n\n" % (kind, push)


class _Presence(Struct):
    """As much of a join or leave as tells one from the other."""

    join: Raw = NO_JSON


_decode_presence = msgspec.json.Decoder(_Presence).decode


class BurstFraming:
    """All event streams share it: what differs between them is made from the burst when it is written."""

    def pack(self, channel: str, items: Sequence[Item]) -> Burst:
        """Return the burst."""
        return Burst(channel, items)


BURST_FRAMING = BurstFraming()
