"""The record notices everything that it is there to notice."""

import pytest

from tests.faults.record import Journal, Record, Tally
from tocsin import Position, Publication


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def journal(record: Record) -> Journal:
    journal = Journal(record, "news")
    journal.begin(at(0))
    return journal


def at(offset: int, epoch: str = "one") -> Position:
    return Position(offset, epoch)


def hear(journal: Journal, *offsets: int, epoch: str = "one") -> None:
    for offset in offsets:
        journal.hear(at(offset, epoch), 100 + offset)


def test_in_order_and_once_is_as_it_should_be(record: Record, journal: Journal) -> None:
    record.acknowledge("news", at(2), 102)
    hear(journal, 1, 2, 3)
    assert record.tally == Tally(acknowledged=1)


def test_a_hole_is_lost_until_it_comes_too_late(record: Record, journal: Journal) -> None:
    hear(journal, 1, 4)
    assert record.tally == Tally(lost=2)
    hear(journal, 3)
    assert record.tally == Tally(lost=1, reordered=1)


def test_what_comes_again_is_duplicated(record: Record, journal: Journal) -> None:
    hear(journal, 1, 2, 1)
    assert record.tally == Tally(duplicated=1)


def test_a_hole_that_was_told_is_not_lost(record: Record, journal: Journal) -> None:
    journal.tell(at(7))
    hear(journal, 8)
    assert record.tally == Tally(told=1)
    assert journal.is_told


def test_another_log_has_to_be_told(record: Record, journal: Journal) -> None:
    hear(journal, 1, epoch="two")
    assert record.tally == Tally(lost=1)


def test_a_place_holds_what_the_publisher_was_told(record: Record, journal: Journal) -> None:
    record.acknowledge("news", at(1), 102)
    hear(journal, 1)
    assert record.tally == Tally(acknowledged=1, reordered=1)


def test_what_is_stored_twice_is_duplicated(record: Record, journal: Journal) -> None:
    journal.hear(at(1), 101)
    journal.hear(at(2), 101)
    assert record.tally == Tally(duplicated=1)


def test_what_was_acknowledged_and_is_not_in_the_log_is_lost(record: Record) -> None:
    """Unless it was another log, which died."""
    record.acknowledge("news", at(1, "dead"), 101)
    record.acknowledge("news", at(1), 102)
    record.acknowledge("news", at(2), 103)
    owed = record.take_acknowledged("news")
    record.audit("news", owed, "one", [Publication("news", {"n": 102}, 1, "one")])
    assert record.tally == Tally(acknowledged=3, lost=1)


def test_what_does_not_come_in_time_is_lost(record: Record, journal: Journal) -> None:
    arrived: list[bool] = []
    hear(journal, 1)
    journal.call_at(at(1), lambda: arrived.append(True))
    assert arrived
    journal.give_up()
    journal.call_at(at(4), lambda: arrived.append(False))
    hear(journal, 2)
    journal.give_up()
    assert arrived == [True]
    assert record.tally == Tally(lost=2)
