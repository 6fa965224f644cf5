"""What an event stream's `id:` says: the positions of all its channels, in the order of the query.

    12@Xq3vLfpA,,7@b0KmRt2w

A browser gives it back as `Last-Event-ID` to whichever node it reaches, so nobody else has to remember where
it stood. A channel without a position has an empty element. The id of a stream that was ended for good says
so instead: it is how that advice survives an EventSource, which comes back whatever it is told.
"""

from __future__ import annotations

import re

from tocsin_server.protocol.messages import Position

FAREWELL = "disconnect:"
"""What the id begins with once the stream was ended for good; the close code follows."""

_ELEMENT = re.compile(r"([0-9]{1,18})@([^\s,@]*)", re.ASCII)


def write_position(position: Position | None) -> bytes:
    """One channel's element; a whole id is these, joined by commas."""
    return b"" if position is None else b"%d@%b" % (position.offset, position.epoch.encode())


def read_positions(text: str, channels: int) -> list[Position | None]:
    """The positions of an id for this many channels; one that is empty altogether has none.

    An element may leave the epoch out after its `@`, which then matches any.

    Raises ValueError if it is not such an id.
    """
    if not text:
        return [None] * channels
    elements = text.split(",")
    if len(elements) != channels:
        raise ValueError(f"has {len(elements)} positions for {channels} channels")
    return [read_position(element) for element in elements]


def read_position(element: str) -> Position | None:
    """The position of one element. Raises ValueError if it is not one."""
    if not element:
        return None
    found = _ELEMENT.fullmatch(element)
    if found is None:
        raise ValueError(f'has "{element[:40]}" where offset@epoch belongs')
    return Position(int(found[1]), found[2])
