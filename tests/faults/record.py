"""The record of a fault run (pure): what was acknowledged, what was received, and how the two differ.

publisher --acknowledge--> Record <--subscribed, received, gap-- SubscriptionRecord
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

from tocsin import Position, Publication


@dataclass
class Tally:
    """Counts since the start, or of a period.

    `acknowledged`: publications whose publisher got a position.
    `gaps`: how often the server announced a gap. Must be 0 unless the history was lost.
    `lost`: publications that a subscriber did not receive and that no announced gap contains, or that were
    acknowledged and are not in the history. Must be 0.
    `duplicated`: publications received twice by one subscriber, or stored twice. Must be 0.
    `reordered`: publications received after a later one, or at another position than their publisher got.
    Must be 0.
    """

    acknowledged: int = 0
    gaps: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0

    def since(self, earlier: Tally) -> Tally:
        """The difference to an earlier tally."""
        return Tally(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))

    @property
    def is_clean(self) -> bool:
        """Whether all counts that must be 0 are 0. Gaps are judged elsewhere."""
        return not (self.lost or self.duplicated or self.reordered)


REMARKS = 20
"""The number of failures that are described. Further ones are only counted."""


class Record:
    """What is known about the histories of all channels: which publication has which position.

    The mutable state is `tally`, `remarks` (descriptions of failures), the number of the publication at each
    position, the position of each number, and the positions acknowledged since the last audit. The methods of
    this class and of `SubscriptionRecord` change it.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self.remarks: list[str] = []
        self._numbers: dict[str, dict[Position, int]] = defaultdict(dict)
        self._places: dict[str, dict[tuple[str, int], Position]] = defaultdict(dict)
        self._acknowledged: dict[str, set[Position]] = defaultdict(set)

    def acknowledge(self, channel: str, position: Position, number: int) -> None:
        """Note that a publisher got this position for its publication."""
        self.tally.acknowledged += 1
        self._acknowledged[channel].add(position)
        self.place(channel, position, number)

    def place(self, channel: str, position: Position, number: int) -> None:
        """Note that a publication has a position.

        A position that already holds another publication counts as reordered. A publication that already has
        another position in the same epoch counts as duplicated.
        """
        known = self._numbers[channel].setdefault(position, number)
        if known != number:
            self.tally.reordered += 1
            self.remark(f"{channel} {position} is {known} and {number}")
            return
        place = self._places[channel].setdefault((position.epoch, number), position)
        if place != position:
            self.tally.duplicated += 1
            self.remark(f"{channel} {number} is at {place} and {position}")

    def take_acknowledged(self, channel: str) -> set[Position]:
        """The positions acknowledged since the last call. The history, read after this, must contain them."""
        return self._acknowledged.pop(channel, set())

    def audit(self, channel: str, owed: set[Position], epoch: str, kept: Sequence[Publication]) -> None:
        """Compare acknowledged positions with the history.

        Positions of another epoch are skipped: they were lost together with that history.
        """
        numbers = {publication.offset: publication.data["n"] for publication in kept}
        for position in owed:
            if position.epoch == epoch and position.offset not in numbers:
                self.tally.lost += 1
                self.remark(f"{channel} {position} was acknowledged and is not stored")
        for offset, number in numbers.items():
            self.place(channel, Position(offset, epoch), number)

    def remark(self, description: str) -> None:
        """Describe a failure."""
        if len(self.remarks) < REMARKS:
            self.remarks.append(description)


class SubscriptionRecord:
    """What one subscriber received in one channel.

    Every publication up to `position` was received, is in an announced gap, or is counted as lost.
    The mutable state is `position`, `has_gap`, the lost offsets and the goal; only the methods change it.
    """

    def __init__(self, record: Record, channel: str, subscriber: str = "") -> None:
        self.channel = channel
        self.position: Position | None = None
        self.has_gap = False
        self._subscriber = subscriber
        self._record = record
        self._missed: set[int] = set()
        self._goal: tuple[Position, Callable[[], None]] | None = None

    def subscribed(self, position: Position) -> None:
        """Note the position of the first subscribe reply."""
        self._move(position)

    def gap(self, position: Position) -> None:
        """Note that the server announced a gap up to `position`."""
        self._record.tally.gaps += 1
        self.has_gap = True
        self._missed.clear()
        self._move(position)

    def received(self, position: Position, number: int) -> None:
        """Note a delivered publication."""
        self._record.place(self.channel, position, number)
        at = self.position
        if at is None or at.epoch != position.epoch:  # a new epoch without an announced gap
            self._lose(1, position)
            self._missed.clear()
        elif position.offset <= at.offset:
            self._received_late(position)
            return
        else:
            skipped = range(at.offset + 1, position.offset)
            self._lose(len(skipped), position)
            self._missed.update(skipped)
        self._move(position)

    def call_when_reached(self, goal: Position, reached: Callable[[], None]) -> None:
        """Call `reached` once `position` is at `goal` or beyond: at once if it already is."""
        self._goal = (goal, reached)
        self._check_goal()

    def count_missing(self) -> None:
        """Count what is missing up to the goal as lost. Call it when no further publications are expected."""
        if self._goal is not None:
            goal, at = self._goal[0], self.position
            is_same_epoch = at is not None and at.epoch == goal.epoch
            self._lose(goal.offset - at.offset if at is not None and is_same_epoch else 1, goal)
            self._goal = None

    def _lose(self, count: int, before: Position) -> None:
        if count:
            self._record.tally.lost += count
            self._record.remark(f"{self._subscriber} lost {self.channel} {self.position} to {before}")

    def _received_late(self, position: Position) -> None:
        tally, is_late = self._record.tally, position.offset in self._missed
        self._missed.discard(position.offset)
        tally.lost -= is_late
        tally.reordered += is_late
        tally.duplicated += not is_late
        self._record.remark(f"{self._subscriber} received {self.channel} {position} after {self.position}")

    def _move(self, position: Position) -> None:
        self.position = position
        self._check_goal()

    def _check_goal(self) -> None:
        if self._goal is not None and self.position is not None:
            goal, reached = self._goal
            if self.position.epoch == goal.epoch and self.position.offset >= goal.offset:
                self._goal = None
                reached()
