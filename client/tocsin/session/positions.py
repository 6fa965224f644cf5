"""Position arithmetic of one channel: the next publication, a duplicate, or a missing one (pure)."""

from __future__ import annotations

from enum import Enum, auto

from tocsin.models import Position, Publication, Subscribed
from tocsin.protocol.messages import SubscribeResult, WirePublication


class Verdict(Enum):
    """How a publication relates to the position before it. AHEAD: publications between them are missing."""

    NEXT = auto()
    DUPLICATE = auto()
    AHEAD = auto()


class PositionTracker:
    """The position up to which the caller has received a channel, apart from reported gaps.

    ``position`` is None before it is known. In a channel that is not positioned it counts from the first
    publication that carries an offset (protocol §5), with an empty epoch. ``has_begun`` becomes True with the
    first position or subscribe reply. Only ``go_live``, ``check`` and ``forget`` change the state.
    """

    def __init__(self, channel: str, since: Position | None = None) -> None:
        self.channel = channel
        self.position = since
        self.has_begun = since is not None

    def forget(self) -> None:
        """Drop the position. The next ``go_live`` then reports ``recovered=False``."""
        self.position = None

    def go_live(self, result: SubscribeResult) -> list[Subscribed | Publication]:
        """Go live with a subscribe result. Returns a ``Subscribed``, then the recovered publications."""
        since, is_first = self.position, not self.has_begun
        self.has_begun = True
        is_recovered = result.recovered and since is not None and since.epoch in ("", result.epoch)
        if is_recovered and since is not None:
            self.position = Position(since.offset, result.epoch)
        elif result.recoverable or result.positioned:
            self.position = Position(result.offset, result.epoch)
        else:
            self.position = None
        missed = []
        for wire in result.publications or ():
            verdict = self.check(wire)
            if verdict is Verdict.AHEAD:  # cache mode sends only the newest publication (protocol §10)
                is_recovered = False
                self._advance(wire)
            if verdict is not Verdict.DUPLICATE:
                missed.append(self.publication(wire))
        recovered = None if is_first else is_recovered
        return [Subscribed(self.channel, recovered, _position_of(result), result.data), *missed]

    def check(self, wire: WirePublication) -> Verdict:
        """Compare a publication with the position. If it is the next one, advance to it."""
        if wire.offset and self.position is not None:
            if wire.offset <= self.position.offset:
                return Verdict.DUPLICATE
            if wire.offset > self.position.offset + 1:
                return Verdict.AHEAD
        self._advance(wire)
        return Verdict.NEXT

    def publication(self, wire: WirePublication) -> Publication:
        """Build the caller's publication, in the current epoch."""
        epoch = self.position.epoch if self.position else ""
        return Publication(self.channel, wire.data, wire.offset, epoch, wire.info, wire.tags or {}, wire.time)

    def _advance(self, wire: WirePublication) -> None:
        if wire.offset:
            self.position = Position(wire.offset, self.position.epoch if self.position else "")


def _position_of(result: SubscribeResult) -> Position | None:
    if not (result.recoverable or result.positioned):
        return None
    return Position(result.offset, result.epoch)
