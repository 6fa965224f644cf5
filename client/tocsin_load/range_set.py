"""A set of whole numbers, stored as ranges: a subscriber's receipts are nearly always one range (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class RangeSet:
    """A set of numbers, to which a number greater than all others is added fast."""

    __slots__ = ("pairs",)

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()) -> None:
        self.pairs: list[tuple[int, int]] = [pair for pair in pairs if pair[0] <= pair[1]]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.pairs)

    def __contains__(self, number: int) -> bool:
        return any(first <= number <= last for first, last in reversed(self.pairs))

    def __iter__(self) -> Iterator[int]:
        for first, last in self.pairs:
            yield from range(first, last + 1)

    @property
    def top(self) -> int:
        """The greatest number, or 0 if the set is empty."""
        return self.pairs[-1][1] if self.pairs else 0

    def add(self, number: int) -> None:
        """Add a number that is not in the set."""
        pairs = self.pairs
        if pairs and number == pairs[-1][1] + 1:
            pairs[-1] = (pairs[-1][0], number)
        elif not pairs or number > pairs[-1][1]:
            pairs.append((number, number))
        else:
            self.pairs = _join(sorted([*pairs, (number, number)]))

    def minus(self, other: RangeSet) -> RangeSet:
        """Return the numbers that are not in the other set."""
        left = self.pairs
        for first, last in other.pairs:
            left = [
                part
                for begin, end in left
                for part in ((begin, min(end, first - 1)), (max(begin, last + 1), end))
                if part[0] <= part[1]
            ]
        return RangeSet(left)

    def first_above(self, number: int) -> int | None:
        """Return the smallest number of the set that is greater than ``number``."""
        for first, last in self.pairs:
            if last > number:
                return max(first, number + 1)
        return None


def _join(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in pairs:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
