"""An event stream's contents: messages, positions and gaps become the events of its channels (pure).

The ``id`` of each event holds the positions of all channels in the order of the query,
``offset@epoch,offset@epoch``; a channel without a log has an empty one. The first event of a stream is an id
alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from .errors import BadProtocol
from .protocol import SubscribeResult, WireCode, WireInfo, WirePublication, decode_as
from .stream import Stream, Verdict
from .values import ChannelEvent, Joined, Left, Position, Publication, Subscribed, Unsubscribed


class Message(Struct):
    """The data of a message: the same object as a push on a WebSocket. Other kinds of push are ignored."""

    channel: str
    pub: WirePublication | None = None
    join: WireInfo | None = None
    leave: WireInfo | None = None


class Ended(WireCode):
    """The data of ``event: unsubscribe``: a channel is over for as long as this stream lasts."""

    channel: str = ""


class Gap(Struct):
    """The data of ``event: gap``: from where on, and up to where, a channel's messages are out of reach."""

    channel: str
    to: Position
    from_: Position | None = msgspec.field(default=None, name="from")


class Hole(Exception):
    """A message is missing, untold: read again from the positions known."""


_messages = msgspec.json.Decoder(Message)
_gaps = msgspec.json.Decoder(Gap)
_endings = msgspec.json.Decoder(Ended)
_codes = msgspec.json.Decoder(WireCode)


class Feed:
    """What is known of the channels of one event stream, across its connections.

    ``since`` holds the positions to begin at, as the caller got them before.
    """

    def __init__(self, channels: Sequence[str], since: str = "") -> None:
        positions = _parse(since, len(channels)) if since else [None] * len(channels)
        self._streams = {
            name: Stream(name, position) for name, position in zip(channels, positions, strict=True)
        }
        self._returning: set[str] = set()

    @property
    def last_event_id(self) -> str:
        """Where to resume; empty when nothing is known yet."""
        positions = [stream.position for stream in self._streams.values()]
        return ",".join(str(one) if one else "" for one in positions) if any(positions) else ""

    def opened(self) -> None:
        """A connection is open: what follows shows which channels came back whole."""
        self._returning = {name for name, stream in self._streams.items() if stream.has_begun}

    def take(self, name: str, data: str, last_id: str) -> Iterator[ChannelEvent]:
        """Read one event. Raises ``Hole``, or ``BadProtocol`` for what is no event of this server."""
        if name == "gap":
            yield self._gap(decode_as(_gaps, data))
        elif name == "unsubscribe":
            told = decode_as(_endings, data)
            yield Unsubscribed(told.channel, told.code, told.reason)
        elif name in ("", "message"):
            positions = dict(zip(self._streams, _parse(last_id, len(self._streams)), strict=True))
            yield from self._begin(positions)
            if data:
                yield from self._message(decode_as(_messages, data), positions)

    def _begin(self, positions: dict[str, Position | None]) -> Iterator[Subscribed]:
        """Go live where that is new. That a channel with a log came back whole only a message shows."""
        for name, stream in self._streams.items():
            position = positions[name]
            if not stream.has_begun:
                yield _begin(stream, position)
            elif position is None and name in self._returning:
                self._returning.discard(name)
                yield _begin(stream, None)

    def _message(self, message: Message, positions: dict[str, Position | None]) -> Iterator[ChannelEvent]:
        if message.join is not None:
            yield Joined(message.channel, message.join.info)
        if message.leave is not None:
            yield Left(message.channel, message.leave.info)
        if message.pub is not None:
            yield from self._publication(message.channel, message.pub, positions.get(message.channel))

    def _publication(
        self, name: str, wire: WirePublication, said: Position | None
    ) -> Iterator[Publication | Subscribed]:
        """Without a position in the id it cannot be judged: no log, or a channel of the server's."""
        stream = self._streams.get(name)
        if stream is None or said is None:
            yield Stream(name).publication(wire)
            return
        known = stream.position
        if known is not None and known.epoch not in ("", said.epoch):
            yield _begin(stream, Position(max(0, wire.offset - 1), said.epoch))
        verdict = stream.offer(wire)
        if verdict is Verdict.HOLE:
            raise Hole
        if verdict is Verdict.NEXT:
            if name in self._returning:
                self._returning.discard(name)
                yield Subscribed(name, True, known)
            yield stream.publication(wire)

    def _gap(self, gap: Gap) -> Subscribed:
        stream = self._streams.get(gap.channel)
        if stream is None:
            raise BadProtocol(f"a gap in {gap.channel!r}, which was not asked for")
        self._returning.discard(gap.channel)
        stream.has_begun = True
        return _begin(stream, gap.to)


def read_disconnect(data: str) -> WireCode:
    """Read the data of ``event: disconnect``."""
    return decode_as(_codes, data)


def _begin(stream: Stream, position: Position | None) -> Subscribed:
    result = SubscribeResult()
    if position is not None:
        result = SubscribeResult(positioned=True, offset=position.offset, epoch=position.epoch)
    news = stream.begin(result)[0]
    assert isinstance(news, Subscribed)  # noqa: S101 # `begin` starts with it
    return news


def _parse(text: str, count: int) -> list[Position | None]:
    parts = text.split(",") if text else [""] * count
    if len(parts) != count:
        raise BadProtocol(f"{text!r} holds {len(parts)} positions for {count} channels")
    try:
        return [Position.parse(part) if part else None for part in parts]
    except ValueError as error:
        raise BadProtocol(str(error)) from error
