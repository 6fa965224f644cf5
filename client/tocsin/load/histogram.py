"""Durations, counted in classes each 4.4 % wider than the one before; the longest is kept exactly (pure)."""

from __future__ import annotations

from math import log2

from msgspec import Struct, field

CLASSES_PER_OCTAVE = 16
MICROSECONDS = 1_000_000


class Histogram(Struct):
    """How often which duration was seen; durations are in seconds, and count at least as a microsecond."""

    counts: dict[int, int] = field(default_factory=dict)
    longest: float = 0.0

    @property
    def total(self) -> int:
        """How many durations were seen."""
        return sum(self.counts.values())

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a duration."""
        number = int(log2(max(1.0, seconds * MICROSECONDS)) * CLASSES_PER_OCTAVE)
        self.counts[number] = self.counts.get(number, 0) + times
        self.longest = max(self.longest, seconds)

    def merge(self, other: Histogram) -> None:
        """Count everything another one has counted."""
        for number, times in other.counts.items():
            self.counts[number] = self.counts.get(number, 0) + times
        self.longest = max(self.longest, other.longest)

    def quantile(self, share: float) -> float:
        """Seconds that this share of the durations did not exceed, within 4.4 %; 0 when there are none."""
        left = share * self.total
        for number in sorted(self.counts):
            left -= self.counts[number]
            if left <= 0:
                return min(self.longest, border(number + 1))
        return self.longest

    def bars(self, most: int) -> list[tuple[float, float, int]]:
        """Give at most so many neighbouring classes: from, to (seconds) and how many."""
        if not self.counts:
            return []
        first, last = min(self.counts), max(self.counts)
        width = -(-(last - first + 1) // most)
        return [
            (border(start), border(start + width), sum(self.counts.get(start + i, 0) for i in range(width)))
            for start in range(first, last + 1, width)
        ]


def border(number: int) -> float:
    """Seconds at which a class begins."""
    return float(2.0 ** (number / CLASSES_PER_OCTAVE)) / MICROSECONDS


def duration(seconds: float) -> str:
    """Write a duration with three digits: 870 µs, 1.23 ms, 45.6 s."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * factor
        if value >= 1 or unit == "µs":
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return "0"
