"""The receipts of one connection."""

from tocsin_load.receipts import Gap, Receipts, ReceiptsSummary


def test_duplicates_and_late_numbers_are_recorded() -> None:
    receipts = Receipts(3)
    for number in (1, 2, 2, 5, 4, 4):
        receipts.add(number)
    assert receipts.summary(is_connected=False) == ReceiptsSummary(
        3, received=[(1, 2), (4, 5)], duplicated=2, late=[4], is_connected=False
    )


def test_a_gap_begins_after_the_newest_number() -> None:
    receipts = Receipts(0)
    receipts.add_gap("E", 7, is_start=True)
    receipts.add(4)
    receipts.add_gap("E", 9)
    assert receipts.gaps == [Gap(0, "E", 7, is_start=True), Gap(4, "E", 9)]
