"""The account of a run: acknowledged publications compared with received ones."""

from tocsin.models import Position
from tocsin_load.deliveries import AcknowledgedPublications, Deliveries, count_deliveries
from tocsin_load.receipts import Receipts


def channel(numbers: range, epoch: str = "e", before: int = 0) -> AcknowledgedPublications:
    """Acknowledged publications, the first at offset ``before + 1``. Without an epoch there is no history."""
    acknowledged = AcknowledgedPublications()
    for number in numbers:
        offset = before + number - numbers[0] + 1
        acknowledged.add(number, Position(offset, epoch) if epoch else None)
    return acknowledged


def receipts(*numbers: int) -> Receipts:
    result = Receipts(0)
    for number in numbers:
        result.add(number)
    return result


def deliveries(
    receipts: Receipts, channel: AcknowledgedPublications, *, is_connected: bool = True
) -> Deliveries:
    return count_deliveries([receipts.summary(is_connected=is_connected)], [channel])


def test_a_complete_and_ordered_delivery_is_clean() -> None:
    counted = deliveries(receipts(1, 2, 3), channel(range(1, 4)))
    assert counted == Deliveries(expected=3)
    assert counted.is_clean


def test_losses_duplicates_and_reorderings_are_counted() -> None:
    assert deliveries(receipts(1, 3), channel(range(1, 4))) == Deliveries(expected=3, lost=1)
    assert deliveries(receipts(1, 2), channel(range(1, 4))) == Deliveries(expected=3, lost=1)
    assert deliveries(receipts(1, 2, 2, 3), channel(range(1, 4))) == Deliveries(expected=3, duplicated=1)
    assert deliveries(receipts(1, 3, 2), channel(range(1, 4))) == Deliveries(expected=3, reordered=1)
    assert not any(
        v.is_clean for v in (Deliveries(lost=1), Deliveries(duplicated=1), Deliveries(reordered=1))
    )


def test_an_unacknowledged_publication_is_not_expected_and_not_ordered() -> None:
    acknowledged = AcknowledgedPublications()
    for number, offset in ((1, 1), (3, 2)):
        acknowledged.add(number, Position(offset, "e"))
    assert deliveries(receipts(1, 3), acknowledged) == Deliveries(expected=2)
    assert deliveries(receipts(1, 3, 2), acknowledged) == Deliveries(expected=2, unacknowledged=1)


def test_a_gap_ends_at_its_position() -> None:
    """A publication missing after that position is lost."""
    interrupted = receipts(1)
    interrupted.add_gap("e", 13)
    interrupted.add(6)
    assert deliveries(interrupted, channel(range(1, 7), before=10)) == Deliveries(
        expected=6, in_gaps=2, lost=2
    )


def test_a_gap_up_to_a_new_epoch_ends_before_its_first_publication() -> None:
    acknowledged = channel(range(1, 5))
    for number in (5, 6):
        acknowledged.add(number, Position(number - 4, "new"))
    interrupted = receipts(1, 2)
    interrupted.add_gap("new", 0)
    interrupted.add(6)
    assert deliveries(interrupted, acknowledged) == Deliveries(expected=6, in_gaps=2, lost=1)


def test_a_gap_without_history_ends_before_the_next_publication_received() -> None:
    interrupted = receipts(1)
    interrupted.add_gap("", 0)
    interrupted.add(4)
    interrupted.add(6)
    assert deliveries(interrupted, channel(range(1, 7), epoch="")) == Deliveries(
        expected=6, in_gaps=2, lost=1
    )


def test_a_gap_without_history_and_without_later_receipts_has_no_end() -> None:
    interrupted = receipts(1)
    interrupted.add_gap("", 0)
    assert deliveries(interrupted, channel(range(1, 4), epoch="")) == Deliveries(expected=3, in_gaps=2)


def test_publications_before_the_first_subscription_are_not_expected() -> None:
    late = Receipts(0)
    late.add_gap("e", 3, is_start=True)
    late.add(5)
    assert deliveries(late, channel(range(1, 6))) == Deliveries(expected=2, lost=1)


def test_losses_of_connections_that_did_not_reconnect_are_counted_apart() -> None:
    counted = deliveries(receipts(1), channel(range(1, 4)), is_connected=False)
    assert counted == Deliveries(expected=3, lost=2, lost_disconnected=2)
