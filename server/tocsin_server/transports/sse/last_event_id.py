"""The text form of a stream's positions: the `id:` of its events, in the order of the channels in the query.

    12@Xq3vLfpA,,7@b0KmRt2w

A browser sends it back as `Last-Event-ID`, to any node, so no node has to remember the stream. A channel
without a position has an empty element. The id of a stream that must not be made again holds its close code
instead, since an EventSource reconnects in any case and brings that id with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tocsin_server.protocol.messages import Position

_FINAL = "disconnect:"

_SEPARATORS = re.compile(r"[-_. ]")

_ELEMENT = re.compile(r"([0-9]{1,18})@([^\s,@]*)", re.ASCII)


class Element(NamedTuple):
    """One channel's position and its text form."""

    position: Position | None
    text: bytes

    @classmethod
    def of(cls, position: Position | None) -> Element:
        """The element of a position."""
        return cls(
            position, b"" if position is None else b"%d@%b" % (position.offset, position.epoch.encode())
        )


NO_POSITION = Element(None, b"")
"""The element of a message without a position; compared by identity."""


class StreamPositions:
    """The positions of one stream. Each keeps its text form, so that an id is made by a join.

    The mutable state is these two lists, of one length; only `move` and `move_through` change them.
    """

    __slots__ = ("_texts", "values")

    def __init__(self, positions: Sequence[Position | None]) -> None:
        self.values = list(positions)
        self._texts = [Element.of(position).text for position in positions]

    def move(self, index: int, element: Element) -> None:
        """Set the position of the channel at `index` of the query."""
        self.values[index], self._texts[index] = element

    def last_event_id(self) -> bytes:
        """The id as of now."""
        return b",".join(self._texts)

    def move_through(self, index: int, events: Sequence[tuple[Element, bytes]]) -> bytes:
        """Join events of the channel at `index`, each after the `id:` line of its element, if it has one."""
        texts = self._texts
        lines = []
        for element, event in events:
            if element is not NO_POSITION:
                self.values[index], texts[index] = element
                lines.append(b"id: %b\n" % b",".join(texts))
            lines.append(event)
        return b"".join(lines)


def final_id(code: int) -> bytes:
    """The id of a stream that must not be made again, and ended with this close code."""
    return b"%b%d" % (_FINAL.encode(), code)


def is_final(text: str) -> bool:
    """Whether an id is that of a stream that must not be made again."""
    return text.startswith(_FINAL)


def is_last_event_id(name: str) -> bool:
    """Whether a parameter or header of this name holds an id, in the spelling of any EventSource library.

    Browsers send the header `Last-Event-ID`. Polyfills send a parameter: `lastEventId`, or Mercure's
    `lastEventID` and `Last-Event-ID`.
    """
    is_candidate = name[:1] in ("l", "L")  # cheap, since every header of a request is checked
    return is_candidate and _SEPARATORS.sub("", name).lower() == "lasteventid"


def read_last_event_id(text: str, channel_count: int) -> list[Position | None]:
    """The positions that an id holds for this many channels; an empty id holds none.

    An element may omit the epoch after its `@`, which then matches any.

    Raises ValueError, whose text continues a sentence that begins with "The last event id".
    """
    if not text:
        return [None] * channel_count
    elements = text.split(",")
    if len(elements) != channel_count:
        raise ValueError(f"has {len(elements)} positions for {channel_count} channels")
    return [_read_position(element) for element in elements]


def _read_position(element: str) -> Position | None:
    if not element:
        return None
    found = _ELEMENT.fullmatch(element)
    if found is None:
        raise ValueError(f'has "{element[:40]}" where offset@epoch belongs')
    return Position(int(found[1]), found[2])
