"""The account of a run: acknowledged publications compared with received ones (pure)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from msgspec import Struct

from tocsin.models import Position

from .range_set import RangeSet
from .receipts import Gap, ReceiptsSummary

UNBOUNDED = 2**62


class Deliveries(Struct):
    """Sums over all connections, in deliveries: one publication to one connection is one.

    ``lost``: acknowledged, expected, not received, and in no gap. ``in_gaps``: not received either, but the
    server reported a gap. ``lost_disconnected``: the part of ``lost`` of connections that had not
    reconnected. ``unacknowledged``: received, although the publisher got no response. The number of received
    publications is always ``expected - lost - in_gaps + duplicated + unacknowledged``.
    """

    expected: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    in_gaps: int = 0
    lost_disconnected: int = 0
    unacknowledged: int = 0

    @property
    def is_clean(self) -> bool:
        """True if no delivery was lost, duplicated or reordered."""
        return not (self.lost or self.duplicated or self.reordered)


class AcknowledgedPublications:
    """The publications of one channel that the server acknowledged, in the order of sending.

    The mutable state is the numbers, and their offsets by epoch; only ``add`` changes it.
    """

    def __init__(self) -> None:
        self.numbers = RangeSet()
        self._epochs: dict[str, tuple[list[int], list[int]]] = {}

    def add(self, number: int, position: Position | None) -> None:
        """Add publication ``number``, greater than all before, at a position (None: no history)."""
        self.numbers.add(number)
        if position is not None:
            offsets, numbers = self._epochs.setdefault(position.epoch, ([], []))
            offsets.append(position.offset)
            numbers.append(number)

    def gap_end(self, gap: Gap, received: RangeSet) -> int:
        """Return the last number that a gap contains."""
        offsets, numbers = self._epochs.get(gap.epoch, ([], []))
        if not offsets:  # no history, or a history without a publication of this run
            return (received.first_above(gap.after) or UNBOUNDED) - 1
        index = bisect_right(offsets, gap.offset)
        return numbers[index - 1] if index else numbers[0] - 1


def count_deliveries(
    summaries: Iterable[ReceiptsSummary], channels: Sequence[AcknowledgedPublications]
) -> Deliveries:
    """Compare the receipts of every connection with the publications of its channel."""
    deliveries = Deliveries()
    for summary in summaries:
        _count(summary, channels[summary.channel], deliveries)
    return deliveries


def _count(summary: ReceiptsSummary, channel: AcknowledgedPublications, deliveries: Deliveries) -> None:
    received = RangeSet(summary.received)
    start = _in_gaps(summary, channel, received, is_start=True)
    reported = _in_gaps(summary, channel, received, is_start=False)
    missing = channel.numbers.minus(received).minus(start)
    lost = len(missing.minus(reported))
    deliveries.expected += len(channel.numbers.minus(start.minus(received)))
    deliveries.lost += lost
    deliveries.in_gaps += len(missing) - lost
    deliveries.lost_disconnected += 0 if summary.is_connected else lost
    deliveries.duplicated += summary.duplicated
    deliveries.unacknowledged += len(received.minus(channel.numbers))
    # an unacknowledged publication has no place in the order
    deliveries.reordered += sum(number in channel.numbers for number in summary.late)


def _in_gaps(
    summary: ReceiptsSummary, channel: AcknowledgedPublications, received: RangeSet, *, is_start: bool
) -> RangeSet:
    return RangeSet(
        (gap.after + 1, channel.gap_end(gap, received)) for gap in summary.gaps if gap.is_start is is_start
    )
