"""Position arithmetic: whether a node has received every publication of a channel.

Offsets count 1, 2, 3 … within one epoch. Everything here is a value, but for `PositionTracker`, whose
position only its channel moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from msgspec import Struct

from tocsin_server.protocol.messages import Position, Publication, SincePosition


class History(Struct, frozen=True):
    """What an engine read of a history: its top, and the requested publications in the requested order."""

    top: Position
    publications: Sequence[Publication] = ()


def merge(history: History, live: Iterable[Publication]) -> History:
    """Continue `history` with the publications received while it was read, without duplicate or gap.

    Leaves out what follows missing publications in `live`. `Channel.merge` then asks its caller to read
    again.
    """
    offset = history.top.offset
    merged = list(history.publications)
    for publication in live:
        if publication.offset == offset + 1:
            merged.append(publication)
            offset += 1
    return History(Position(offset, history.top.epoch), merged)


def fitting(publications: Iterable[Publication], limit_bytes: float, least: int = 1) -> list[Publication]:
    """The first publications, as many as have `limit_bytes` together; at least `least` of them."""
    found: list[Publication] = []
    size = 0
    for publication in publications:
        size += publication.size
        if size > limit_bytes and len(found) >= least:
            break
        found.append(publication)
    return found


NOTHING_BEFORE = "in reverse there is nothing before offset 0"
"""Why `may_read_from` is false, in the message of error 107."""


def may_read_from(since: SincePosition | None, is_reverse: bool) -> bool:
    """Whether a history request makes sense: before offset 0 there is nothing to read in reverse."""
    return not (is_reverse and since is not None and since.offset == 0)


def is_other_history(since: Position, top: Position) -> bool:
    """Whether `top` belongs to another history than the one in which `since` was a position."""
    return top.epoch != since.epoch or top.offset < since.offset


def is_behind(since: Position, top: Position) -> bool:
    """Whether `since` is below `top` in the same history. An empty epoch matches any."""
    return since.offset < top.offset and since.epoch in ("", top.epoch)


class Continuity(Enum):
    """How a received publication continues what this node has received before."""

    NEXT = "next"
    OLD = "old"
    AHEAD = "ahead"
    OTHER_EPOCH = "other epoch"

    @property
    def needs_backfill(self) -> bool:
        """Whether publications before this one are missing here."""
        return self in (Continuity.AHEAD, Continuity.OTHER_EPOCH)


NEXT = Continuity.NEXT
"""Of nearly all publications. Members of enums are slow to read from their class in Python 3.11."""


class PositionTracker:
    """The position up to which a node has received every publication of a channel.

    unknown --set(), advance()--> known --advance()--> known …
    """

    __slots__ = ("_epoch", "_offset")

    def __init__(self) -> None:
        self._offset = -1
        self._epoch = ""

    @property
    def is_known(self) -> bool:
        """Whether there is a position to continue from."""
        return self._offset >= 0

    @property
    def offset(self) -> int:
        """The offset up to which everything was received; -1 before the first position is known."""
        return self._offset

    @property
    def position(self) -> Position:
        """The position up to which everything was received. Valid only if it is known."""
        return Position(self._offset, self._epoch)

    def set(self, position: Position) -> None:
        """Continue from `position`: the first one read, or the one after a reset."""
        self._offset, self._epoch = position.offset, position.epoch

    def advance(self, offset: int, epoch: str) -> Continuity:
        """Judge a received publication. Only NEXT moves the position, which the first publication begins."""
        if offset == self._offset + 1 and epoch == self._epoch:
            self._offset = offset
            return NEXT
        if not self.is_known:
            self._offset, self._epoch = offset, epoch
            return NEXT
        if epoch != self._epoch:
            return Continuity.OTHER_EPOCH
        return Continuity.OLD if offset <= self._offset else Continuity.AHEAD
