"""The record counts every failure that it exists to count."""

import pytest

from tests.faults.record import Record, SubscriptionRecord, Tally
from tocsin import Position, Publication


@pytest.fixture
def record() -> Record:
    return Record()


@pytest.fixture
def subscription(record: Record) -> SubscriptionRecord:
    subscription = SubscriptionRecord(record, "news")
    subscription.subscribed(at(0))
    return subscription


def at(offset: int, epoch: str = "one") -> Position:
    return Position(offset, epoch)


def receive(subscription: SubscriptionRecord, *offsets: int, epoch: str = "one") -> None:
    for offset in offsets:
        subscription.received(at(offset, epoch), 100 + offset)


def test_publications_in_order_and_once_are_no_failure(
    record: Record, subscription: SubscriptionRecord
) -> None:
    record.acknowledge("news", at(2), 102)
    receive(subscription, 1, 2, 3)
    assert record.tally == Tally(acknowledged=1)


def test_a_skipped_publication_is_lost_until_it_arrives_late(
    record: Record, subscription: SubscriptionRecord
) -> None:
    receive(subscription, 1, 4)
    assert record.tally == Tally(lost=2)
    receive(subscription, 3)
    assert record.tally == Tally(lost=1, reordered=1)


def test_a_publication_received_twice_is_duplicated(record: Record, subscription: SubscriptionRecord) -> None:
    receive(subscription, 1, 2, 1)
    assert record.tally == Tally(duplicated=1)


def test_an_announced_gap_is_not_lost(record: Record, subscription: SubscriptionRecord) -> None:
    subscription.gap(at(7))
    receive(subscription, 8)
    assert record.tally == Tally(gaps=1)
    assert subscription.has_gap


def test_a_new_epoch_without_a_gap_is_a_loss(record: Record, subscription: SubscriptionRecord) -> None:
    receive(subscription, 1, epoch="two")
    assert record.tally == Tally(lost=1)


def test_a_position_with_another_publication_than_acknowledged_is_reordered(
    record: Record, subscription: SubscriptionRecord
) -> None:
    record.acknowledge("news", at(1), 102)
    receive(subscription, 1)
    assert record.tally == Tally(acknowledged=1, reordered=1)


def test_a_publication_stored_twice_is_duplicated(record: Record, subscription: SubscriptionRecord) -> None:
    subscription.received(at(1), 101)
    subscription.received(at(2), 101)
    assert record.tally == Tally(duplicated=1)


def test_an_acknowledged_publication_that_is_not_in_the_history_is_lost(record: Record) -> None:
    """Positions of another epoch do not count: their history was lost."""
    record.acknowledge("news", at(1, "dead"), 101)
    record.acknowledge("news", at(1), 102)
    record.acknowledge("news", at(2), 103)
    owed = record.take_acknowledged("news")
    record.audit("news", owed, "one", [Publication("news", {"n": 102}, 1, "one")])
    assert record.tally == Tally(acknowledged=3, lost=1)


def test_a_publication_that_does_not_arrive_in_time_is_lost(
    record: Record, subscription: SubscriptionRecord
) -> None:
    reached: list[bool] = []
    receive(subscription, 1)
    subscription.call_when_reached(at(1), lambda: reached.append(True))
    assert reached
    subscription.count_missing()
    subscription.call_when_reached(at(4), lambda: reached.append(False))
    receive(subscription, 2)
    subscription.count_missing()
    assert reached == [True]
    assert record.tally == Tally(lost=2)
