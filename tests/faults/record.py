"""The record: what publishers were told, what subscribers heard, and how the two differ (pure).

publisher --acknowledge--> Record <--begin, hear, tell-- Journal, one per subscriber and channel
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

from tocsin import Position, Publication


@dataclass
class Tally:
    """Counts so far, or within a time. All but the first two must stay 0; `told` too where the log lives.

    `lost`: publications that somebody did not hear, and was not told of, or that were acknowledged and not
    stored. `duplicated`: heard or stored twice. `reordered`: heard too late, or at another place of the log
    than the publisher was told.
    """

    acknowledged: int = 0
    told: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0

    def since(self, earlier: Tally) -> Tally:
        """What was added."""
        return Tally(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong, told losses aside."""
        return not (self.lost or self.duplicated or self.reordered)


REMARKS = 20
"""So many faults are described; the others are only counted."""


class Record:
    """What is known of all logs: which publication, by its number, is at which place.

    `remarks` describe what is wrong.
    """

    def __init__(self) -> None:
        self.tally = Tally()
        self.remarks: list[str] = []
        self._numbers: dict[str, dict[Position, int]] = defaultdict(dict)
        self._places: dict[str, dict[tuple[str, int], Position]] = defaultdict(dict)
        self._acknowledged: dict[str, set[Position]] = defaultdict(set)

    def acknowledge(self, channel: str, position: Position, number: int) -> None:
        """A publisher was told that its publication is stored, and where."""
        self.tally.acknowledged += 1
        self._acknowledged[channel].add(position)
        self.agree(channel, position, number)

    def agree(self, channel: str, position: Position, number: int) -> None:
        """A place holds one publication for everybody, and each is at one place of a log."""
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
        """What was acknowledged since the last time: what the log, read after this, must hold."""
        return self._acknowledged.pop(channel, set())

    def audit(self, channel: str, owed: set[Position], epoch: str, kept: Sequence[Publication]) -> None:
        """Compare what was acknowledged with all that the log keeps; what was in another log died with it."""
        numbers = {publication.offset: publication.data["n"] for publication in kept}
        for position in owed:
            if position.epoch == epoch and position.offset not in numbers:
                self.tally.lost += 1
                self.remark(f"{channel} {position} was acknowledged and is not stored")
        for offset, number in numbers.items():
            self.agree(channel, Position(offset, epoch), number)

    def remark(self, what: str) -> None:
        """Say what is wrong."""
        if len(self.remarks) < REMARKS:
            self.remarks.append(what)


class Journal:
    """What one subscriber heard of one channel.

    Up to `position` it heard everything, or was told of the rest, or the record counts it as lost.
    """

    def __init__(self, record: Record, channel: str, who: str = "") -> None:
        self.channel = channel
        self.position: Position | None = None
        self.is_told = False
        self._who = who
        self._record = record
        self._missed: set[int] = set()
        self._goal: tuple[Position, Callable[[], None]] | None = None

    def begin(self, position: Position) -> None:
        """Subscribed for the first time."""
        self._move(position)

    def tell(self, position: Position) -> None:
        """Told that something may be missing before `position`."""
        self._record.tally.told += 1
        self.is_told = True
        self._missed.clear()
        self._move(position)

    def hear(self, position: Position, number: int) -> None:
        """A publication was delivered."""
        self._record.agree(self.channel, position, number)
        at = self.position
        if at is None or at.epoch != position.epoch:  # another log, and nobody said so
            self._lose(1, position)
            self._missed.clear()
        elif position.offset <= at.offset:
            self._hear_late(position)
            return
        else:
            skipped = range(at.offset + 1, position.offset)
            self._lose(len(skipped), position)
            self._missed.update(skipped)
        self._move(position)

    def call_at(self, goal: Position, arrived: Callable[[], None]) -> None:
        """Call `arrived` once everything up to `goal` was heard or told of: at once if it was already."""
        self._goal = (goal, arrived)
        self._check_goal()

    def give_up(self) -> None:
        """Nothing more will come: what is missing up to the goal is lost."""
        if self._goal is not None:
            goal, at = self._goal[0], self.position
            is_same_log = at is not None and at.epoch == goal.epoch
            self._lose(goal.offset - at.offset if at is not None and is_same_log else 1, goal)
            self._goal = None

    def _lose(self, count: int, before: Position) -> None:
        if count:
            self._record.tally.lost += count
            self._record.remark(f"{self._who} lost {self.channel} {self.position} to {before}")

    def _hear_late(self, position: Position) -> None:
        tally, is_late = self._record.tally, position.offset in self._missed
        self._missed.discard(position.offset)
        tally.lost -= is_late
        tally.reordered += is_late
        tally.duplicated += not is_late
        self._record.remark(f"{self._who} heard {self.channel} {position} after {self.position}")

    def _move(self, position: Position) -> None:
        self.position = position
        self._check_goal()

    def _check_goal(self) -> None:
        if self._goal is not None and self.position is not None:
            goal, arrived = self._goal
            if self.position.epoch == goal.epoch and self.position.offset >= goal.offset:
                self._goal = None
                arrived()
