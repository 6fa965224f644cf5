"""Position arithmetic of one channel: what is next, what was seen, where something is missing (pure)."""

from __future__ import annotations

from enum import Enum, auto

from .protocol import SubscribeResult, WirePublication
from .values import Position, Publication, Subscribed


class Verdict(Enum):
    """What a live publication is to a stream."""

    NEXT = auto()
    DUPLICATE = auto()
    HOLE = auto()


class Stream:
    """How much of a channel its caller has seen: all up to ``position``, or was told of the loss.

    ``position`` is None before anything is known. It goes on counting in channels that are not positioned as
    soon as a publication carries an offset (protocol §5), with an empty epoch.
    """

    def __init__(self, channel: str, since: Position | None = None) -> None:
        self.channel = channel
        self.position = since
        self.has_begun = since is not None

    def forget(self) -> None:
        """Drop the position, not the knowledge that there was one: the next begin says recovered=False."""
        self.position = None

    def begin(self, result: SubscribeResult) -> list[Subscribed | Publication]:
        """Go live with a subscribe result: the news of it, then what was missed, in order."""
        wanted, is_first = self.position, not self.has_begun
        self.has_begun = True
        is_whole = result.recovered and wanted is not None and wanted.epoch in ("", result.epoch)
        if is_whole and wanted is not None:
            self.position = Position(wanted.offset, result.epoch)
        elif result.recoverable or result.positioned:
            self.position = Position(result.offset, result.epoch)
        else:
            self.position = None
        missed = []
        for wire in result.publications or ():
            verdict = self.offer(wire)
            if verdict is Verdict.HOLE:  # cache mode gives the newest only (protocol §10)
                is_whole = False
                self._advance(wire)
            if verdict is not Verdict.DUPLICATE:
                missed.append(self.publication(wire))
        recovered = None if is_first else is_whole
        return [Subscribed(self.channel, recovered, self._begin_position(result), result.data), *missed]

    def offer(self, wire: WirePublication) -> Verdict:
        """Judge a publication, and move on to it if it is the next one."""
        if wire.offset and self.position is not None:
            if wire.offset <= self.position.offset:
                return Verdict.DUPLICATE
            if wire.offset > self.position.offset + 1:
                return Verdict.HOLE
        self._advance(wire)
        return Verdict.NEXT

    def publication(self, wire: WirePublication) -> Publication:
        """Give a publication its place."""
        epoch = self.position.epoch if self.position else ""
        return Publication(self.channel, wire.data, wire.offset, epoch, wire.info, wire.tags or {}, wire.time)

    def _advance(self, wire: WirePublication) -> None:
        if wire.offset:
            self.position = Position(wire.offset, self.position.epoch if self.position else "")

    def _begin_position(self, result: SubscribeResult) -> Position | None:
        if not (result.recoverable or result.positioned):
            return None
        return Position(result.offset, result.epoch)
