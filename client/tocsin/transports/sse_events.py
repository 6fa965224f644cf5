"""The events of an event stream, turned into the events of its channels (pure).

The ``id`` of each event holds the positions of all channels in the order of the query:
``offset@epoch,offset@epoch``. A channel without history has an empty one. The first event of a stream is an
id without data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from tocsin.errors import BadProtocol
from tocsin.models import ChannelEvent, Joined, Left, Position, Publication, Subscribed, Unsubscribed
from tocsin.protocol.codec import decode_json
from tocsin.protocol.messages import SubscribeResult, WireCode, WireError, WireInfo, WirePublication
from tocsin.session.positions import PositionTracker, Verdict


class EventMessage(Struct):
    """The data of a message: the same object as a push on a WebSocket. Other kinds of push are ignored."""

    channel: str
    pub: WirePublication | None = None
    join: WireInfo | None = None
    leave: WireInfo | None = None


class EventUnsubscribe(WireCode):
    """The data of ``event: unsubscribe``: a channel has ended for the rest of this stream."""

    channel: str = ""


class EventGap(Struct):
    """The data of ``event: gap``: the publications of a channel after ``from_`` and up to ``to`` are lost."""

    channel: str
    to: Position
    from_: Position | None = msgspec.field(default=None, name="from")


class PublicationMissing(Exception):
    """A publication is missing without a gap event: reconnect, and recover from the known positions."""


_messages = msgspec.json.Decoder(EventMessage)
_gaps = msgspec.json.Decoder(EventGap)
_unsubscribes = msgspec.json.Decoder(EventUnsubscribe)
_refusals = msgspec.json.Decoder(WireError)
_disconnects = msgspec.json.Decoder(WireCode)


class SseEvents:
    """The channels of one event stream and their positions, across its connections.

    ``since`` holds the positions to recover from, as ``Last-Event-ID`` does. The mutable state is one
    ``PositionTracker`` per channel, and ``_recovering``: the channels of which this connection has not yet
    shown whether they recovered. Only ``on_connected`` and ``handle`` change it.
    """

    def __init__(self, channels: Sequence[str], since: str = "") -> None:
        positions = _parse_positions(since, len(channels)) if since else [None] * len(channels)
        self._trackers = {
            name: PositionTracker(name, position) for name, position in zip(channels, positions, strict=True)
        }
        self._recovering: set[str] = set()

    @property
    def last_event_id(self) -> str:
        """The positions from which to recover. Empty while no position is known."""
        positions = [tracker.position for tracker in self._trackers.values()]
        return ",".join(str(one) if one else "" for one in positions) if any(positions) else ""

    def on_connected(self) -> None:
        """Handle a new connection. Its events show which channels recovered."""
        self._recovering = {name for name, tracker in self._trackers.items() if tracker.has_begun}

    def handle(self, name: str, data: str, last_id: str) -> Iterator[ChannelEvent]:
        """Handle one event. Raises ``PublicationMissing``, or ``BadProtocol`` for an unreadable event."""
        if name == "gap":
            yield self._on_gap(decode_json(_gaps, data))
        elif name == "unsubscribe":
            ended = decode_json(_unsubscribes, data)
            yield Unsubscribed(ended.channel, ended.code, ended.reason)
        elif name in ("", "message"):
            positions = dict(zip(self._trackers, _parse_positions(last_id, len(self._trackers)), strict=True))
            yield from self._go_live(positions)
            if data:
                yield from self._on_message(decode_json(_messages, data), positions)

    def _go_live(self, positions: dict[str, Position | None]) -> Iterator[Subscribed]:
        """Go live with the channels that were not.

        For a channel with history, only its next publication shows that it recovered.
        """
        for name, tracker in self._trackers.items():
            position = positions[name]
            if not tracker.has_begun:
                yield _go_live(tracker, position)
            elif position is None and name in self._recovering:
                self._recovering.discard(name)
                yield _go_live(tracker, None)

    def _on_message(
        self, message: EventMessage, positions: dict[str, Position | None]
    ) -> Iterator[ChannelEvent]:
        if message.join is not None:
            yield Joined(message.channel, message.join.info)
        if message.leave is not None:
            yield Left(message.channel, message.leave.info)
        if message.pub is not None:
            yield from self._on_publication(message.channel, message.pub, positions.get(message.channel))

    def _on_publication(
        self, name: str, wire: WirePublication, position: Position | None
    ) -> Iterator[Publication | Subscribed]:
        """Yield a publication if it is the next one.

        Without a position in the id it is not checked: the channel has no history, or is server-side.
        """
        tracker = self._trackers.get(name)
        if tracker is None or position is None:
            yield PositionTracker(name).publication(wire)
            return
        known = tracker.position
        if known is not None and known.epoch not in ("", position.epoch):
            yield _go_live(tracker, Position(max(0, wire.offset - 1), position.epoch))
        verdict = tracker.check(wire)
        if verdict is Verdict.AHEAD:
            raise PublicationMissing
        if verdict is Verdict.NEXT:
            if name in self._recovering:
                self._recovering.discard(name)
                yield Subscribed(name, True, known)
            yield tracker.publication(wire)

    def _on_gap(self, gap: EventGap) -> Subscribed:
        tracker = self._trackers.get(gap.channel)
        if tracker is None:
            raise BadProtocol(f"a gap in {gap.channel!r}, which is not a channel of this stream")
        self._recovering.discard(gap.channel)
        tracker.has_begun = True
        return _go_live(tracker, gap.to)


def decode_disconnect(data: str) -> WireCode:
    """Decode the data of ``event: disconnect``."""
    return decode_json(_disconnects, data)


def decode_refusal(data: str) -> str:
    """Return the reason in the data of ``event: refused``: the server cannot serve the stream now."""
    return decode_json(_refusals, data).message


def _go_live(tracker: PositionTracker, position: Position | None) -> Subscribed:
    result = SubscribeResult()
    if position is not None:
        result = SubscribeResult(positioned=True, offset=position.offset, epoch=position.epoch)
    event = tracker.go_live(result)[0]
    assert isinstance(event, Subscribed)  # noqa: S101 # `go_live` begins with it
    return event


def _parse_positions(text: str, count: int) -> list[Position | None]:
    parts = text.split(",") if text else [""] * count
    if len(parts) != count:
        raise BadProtocol(f"{text!r} holds {len(parts)} positions for {count} channels")
    try:
        return [Position.parse(part) if part else None for part in parts]
    except ValueError as error:
        raise BadProtocol(str(error)) from error
