"""The receipts of one connection: the numbers of its publications, and its gaps (pure)."""

from __future__ import annotations

from msgspec import Struct, field

from .range_set import RangeSet


class Gap(Struct):
    """The publications after number ``after`` and up to a position, which a connection does not expect.

    ``is_start``: they were published before it subscribed. Otherwise the server reported the gap, by
    ``recovered: false`` or ``event: gap``. In a channel without history (an empty epoch) the end is unknown;
    the gap then ends before the next publication received.
    """

    after: int
    epoch: str
    offset: int
    is_start: bool = False


class ReceiptsSummary(Struct):
    """The receipts of one connection, as a worker sends them to the parent."""

    channel: int
    received: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    duplicated: int = 0
    late: list[int] = field(default_factory=list)
    is_connected: bool = True


class Receipts:
    """The receipts of one connection. ``late`` has the numbers that were received after a greater one.

    The mutable state is all attributes except ``channel``; ``add`` and ``add_gap`` change it. The subscriber
    sets ``has_begun`` with its first subscribe reply.
    """

    __slots__ = ("channel", "duplicated", "gaps", "has_begun", "late", "received")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.received = RangeSet()
        self.gaps: list[Gap] = []
        self.duplicated = 0
        self.late: list[int] = []
        self.has_begun = False

    def add(self, number: int) -> None:
        """Record one publication."""
        if number > self.received.top:
            self.received.add(number)
        elif number in self.received:
            self.duplicated += 1
        else:
            self.late.append(number)
            self.received.add(number)

    def add_gap(self, epoch: str, offset: int, *, is_start: bool = False) -> None:
        """Record a gap from the newest publication received up to a position."""
        self.gaps.append(Gap(self.received.top, epoch, offset, is_start))

    def summary(self, *, is_connected: bool) -> ReceiptsSummary:
        """Return all receipts as one value."""
        return ReceiptsSummary(
            self.channel,
            self.received.pairs,
            self.gaps,
            self.duplicated,
            self.late,
            is_connected=is_connected,
        )
