"""A set of whole numbers, kept as ranges: what a subscriber heard is nearly always one (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class Ranges:
    """A set of numbers that is cheap to add to at its end."""

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
        """The greatest number; 0 when there is none."""
        return self.pairs[-1][1] if self.pairs else 0

    def add(self, number: int) -> None:
        """Put in a number that is not in it."""
        pairs = self.pairs
        if pairs and number == pairs[-1][1] + 1:
            pairs[-1] = (pairs[-1][0], number)
        elif not pairs or number > pairs[-1][1]:
            pairs.append((number, number))
        else:
            self.pairs = _joined(sorted([*pairs, (number, number)]))

    def minus(self, other: Ranges) -> Ranges:
        """Give the numbers that are not in the other."""
        left = self.pairs
        for first, last in other.pairs:
            left = [
                part
                for begin, end in left
                for part in ((begin, min(end, first - 1)), (max(begin, last + 1), end))
                if part[0] <= part[1]
            ]
        return Ranges(left)

    def first_above(self, number: int) -> int | None:
        """Give the smallest of them that is greater than a number."""
        for first, last in self.pairs:
            if last > number:
                return max(first, number + 1)
        return None


def _joined(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, last in pairs:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined
