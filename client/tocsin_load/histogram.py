"""A histogram of durations in classes, each 4.4 % wider than the one before. The longest is exact (pure)."""

from __future__ import annotations

from math import log2

from msgspec import Struct, field

CLASSES_PER_OCTAVE = 16
MICROSECONDS = 1_000_000


class Histogram(Struct):
    """The number of durations in each class. Durations are in seconds; the smallest is one microsecond."""

    counts: dict[int, int] = field(default_factory=dict)
    longest: float = 0.0

    @property
    def total(self) -> int:
        """The number of durations."""
        return sum(self.counts.values())

    def add(self, seconds: float, times: int = 1) -> None:
        """Add a duration."""
        number = int(log2(max(1.0, seconds * MICROSECONDS)) * CLASSES_PER_OCTAVE)
        self.counts[number] = self.counts.get(number, 0) + times
        self.longest = max(self.longest, seconds)

    def merge(self, other: Histogram) -> None:
        """Add all durations of another histogram."""
        for number, times in other.counts.items():
            self.counts[number] = self.counts.get(number, 0) + times
        self.longest = max(self.longest, other.longest)

    def quantile(self, share: float) -> float:
        """Return the seconds that this share of the durations did not exceed, within 4.4 %. 0 if empty."""
        left = share * self.total
        for number in sorted(self.counts):
            left -= self.counts[number]
            if left <= 0:
                return min(self.longest, lower_bound(number + 1))
        return self.longest

    def bars(self, most: int) -> list[tuple[float, float, int]]:
        """Return at most ``most`` bars of neighbouring classes: start and end in seconds, and the number."""
        if not self.counts:
            return []
        first, last = min(self.counts), max(self.counts)
        width = -(-(last - first + 1) // most)
        return [
            (
                lower_bound(start),
                lower_bound(start + width),
                sum(self.counts.get(start + i, 0) for i in range(width)),
            )
            for start in range(first, last + 1, width)
        ]


def lower_bound(number: int) -> float:
    """Return the seconds at which a class begins."""
    return float(2.0 ** (number / CLASSES_PER_OCTAVE)) / MICROSECONDS


def format_duration(seconds: float) -> str:
    """Format a duration with three digits: 870 µs, 1.23 ms, 45.6 s."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        value = seconds * factor
        if value >= 1 or unit == "µs":
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
    return "0"
