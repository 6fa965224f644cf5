"""The events of an event stream as bytes (HTML standard, §9.2).

The data of a publication, join or leave is the push that a WebSocket client gets, without its envelope.
Publications are messages, and so is the end of a subscription, so an `onmessage` handler gets both. Encoded
JSON holds no line break, so one `data:` line is enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import structs

from tocsin_server.core.channel import ChannelMessage
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import Position
from tocsin_server.transports.sse.last_event_id import NO_POSITION, Element, StreamPositions, final_id

KEEP_ALIVE = b":\n\n"

_encode = msgspec.json.encode


def opening_event(positions: StreamPositions, retry_milliseconds: int) -> bytes:
    """The first event: positions, and when to reconnect. A browser keeps both and dispatches nothing."""
    return b"id: %b\nretry: %d\n\n" % (positions.last_event_id(), retry_milliseconds)


def connect_event(client: str, node: str) -> bytes:
    """The connection's client id, as presence shows it, and the name of its node."""
    return b"event: connect\ndata: %b\n\n" % _encode({"client": client, "node": node})


def gap_event(channel: str, since: Position, to: Position, positions: StreamPositions) -> bytes:
    """The publications after `since`, up to and with `to`, are a gap; `positions` are those after it."""
    gap = {"channel": channel, "from": structs.asdict(since), "to": structs.asdict(to)}
    return b"event: gap\nid: %b\ndata: %b\n\n" % (positions.last_event_id(), _encode(gap))


def subscribe_event(channel: str) -> bytes:
    """The server made a subscription."""
    return b"event: subscribe\ndata: %b\n\n" % _encode({"channel": channel})


def unsubscribe_event(channel: str, code: int, reason: str) -> bytes:
    """The server ended a subscription for as long as this stream lasts.

    A message with the same push as on a WebSocket follows, for a page that has no handler for the event.
    """
    why = {"code": code, "reason": reason}
    message = {"channel": channel, "unsubscribe": why}
    return b"event: unsubscribe\ndata: %b\n\ndata: %b\n\n" % (
        _encode({"channel": channel, **why}),
        _encode(message),
    )


def refused_event(code: int, message: str, retry_milliseconds: int) -> bytes:
    """The only event of a stream that is refused for now: the body of the refusal, and when to come back."""
    body = _encode({"code": code, "message": message})
    return b"event: refused\nretry: %d\ndata: %b\n\n" % (retry_milliseconds, body)


def disconnect_event(disconnect: Disconnect) -> bytes:
    """The last event. Where the client must not reconnect, it has an id that makes the next request a 204."""
    data = _encode({"code": disconnect.code, "reason": disconnect.reason})
    last_id = b"" if disconnect.may_reconnect else b"id: %b\n" % final_id(disconnect.code)
    return b"event: disconnect\n%bdata: %b\n\n" % (last_id, data)


class EncodedBatch:
    """Messages of one channel as events; `len` is their size in bytes.

    Streams differ only in the ids. A stream of this channel alone has the same ids as every other such
    stream, so those bytes are made once, for the first that needs them.
    """

    __slots__ = ("_events", "_last_element", "_single_channel", "_size", "_without_ids", "channel")

    def __init__(self, channel: str, messages: Sequence[ChannelMessage]) -> None:
        self.channel = channel
        self._events = [(_element(message), _event(message)) for message in messages]
        self._last_element = next(
            (element for element, _ in reversed(self._events) if element is not NO_POSITION), NO_POSITION
        )
        self._size = sum(len(event) for _, event in self._events)
        self._single_channel: bytes | None = None
        self._without_ids: bytes | None = None

    def __len__(self) -> int:
        return self._size

    def without_ids(self) -> bytes:
        """The events for a stream that has no position in this channel."""
        if self._without_ids is None:
            self._without_ids = b"".join(event for _, event in self._events)
        return self._without_ids

    def with_ids(self, positions: StreamPositions, index: int) -> bytes:
        """The events for a stream at `positions`. Moves the one at `index`, which is of this channel."""
        if len(positions.values) > 1:
            return positions.move_through(index, self._events)
        if self._single_channel is None:
            self._single_channel = positions.move_through(index, self._events)
        elif self._last_element is not NO_POSITION:
            positions.move(index, self._last_element)
        return self._single_channel


def _element(message: ChannelMessage) -> Element:
    publication = message.push.pub
    if publication is None or not publication.has_offset:
        return NO_POSITION
    return Element.of(Position(publication.offset, message.epoch))


def _event(message: ChannelMessage) -> bytes:
    encoded = message.encoded(JSON)
    if message.is_publication:
        return b"data: %b\n\n" % encoded
    kind = b"leave" if message.push.join is None else b"join"
    return b"event: %b\ndata: %b\n\n" % (kind, encoded)


class EventFraming:
    """Packs a channel's messages for all event streams. Their ids are added when the batch is written."""

    codec = JSON

    def pack(self, channel: str, messages: Sequence[ChannelMessage]) -> EncodedBatch:
        """Return the batch. Raises PayloadNotJson."""
        return EncodedBatch(channel, messages)


EVENT_FRAMING = EventFraming()
