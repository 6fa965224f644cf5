"""Who should have heard what, and did: acknowledged publications against what connections heard (pure)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from msgspec import Struct

from tocsin.values import Position

from .ranges import Ranges
from .record import Account, Hole

FOR_EVER = 2**62


class Verdict(Struct):
    """Sums over all connections, in deliveries: one publication to one connection is one.

    ``lost``: acknowledged, expected, never heard, and nobody said so. ``told``: missing too, but the
    connection knows. ``unheard_away``: that part of ``lost`` which is of connections that had not come back.
    ``unacknowledged``: heard, though the publisher got no answer and could not expect it. So what was heard
    is always ``expected - lost - told + duplicated + unacknowledged``.
    """

    expected: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    told: int = 0
    unheard_away: int = 0
    unacknowledged: int = 0

    @property
    def is_clean(self) -> bool:
        """Nothing was lost, duplicated or reordered."""
        return not (self.lost or self.duplicated or self.reordered)


class Acknowledged:
    """The publications of one channel that the server said it has, in the order they were sent."""

    def __init__(self) -> None:
        self.numbers = Ranges()
        self._epochs: dict[str, tuple[list[int], list[int]]] = {}

    def add(self, number: int, position: Position | None) -> None:
        """Publication ``number``, greater than those before, is at this position (None: no log)."""
        self.numbers.add(number)
        if position is not None:
            offsets, numbers = self._epochs.setdefault(position.epoch, ([], []))
            offsets.append(position.offset)
            numbers.append(number)

    def end_of(self, hole: Hole, heard: Ranges) -> int:
        """Give the last number that a hole covers."""
        offsets, numbers = self._epochs.get(hole.epoch, ([], []))
        if not offsets:  # no log, or one that took none of our publications
            return (heard.first_above(hole.after) or FOR_EVER) - 1
        index = bisect_right(offsets, hole.offset)
        return numbers[index - 1] if index else numbers[0] - 1


def judge(accounts: Iterable[Account], channels: Sequence[Acknowledged]) -> Verdict:
    """Judge every connection's account against its channel."""
    verdict = Verdict()
    for account in accounts:
        _judge(account, channels[account.channel], verdict)
    return verdict


def _judge(account: Account, channel: Acknowledged, verdict: Verdict) -> None:
    heard = Ranges(account.heard)
    start = _covered(account, channel, heard, is_start=True)
    told = _covered(account, channel, heard, is_start=False)
    missing = channel.numbers.minus(heard).minus(start)
    lost = len(missing.minus(told))
    verdict.expected += len(channel.numbers.minus(start.minus(heard)))
    verdict.lost += lost
    verdict.told += len(missing) - lost
    verdict.unheard_away += 0 if account.is_connected else lost
    verdict.duplicated += account.duplicated
    verdict.unacknowledged += len(heard.minus(channel.numbers))
    # one that was never acknowledged, because its answer was lost, has no place in the order
    verdict.reordered += sum(number in channel.numbers for number in account.late)


def _covered(account: Account, channel: Acknowledged, heard: Ranges, *, is_start: bool) -> Ranges:
    return Ranges(
        (hole.after + 1, channel.end_of(hole, heard)) for hole in account.holes if hole.is_start is is_start
    )
