"""Judging what connections heard against what was acknowledged."""

from tocsin.load.record import Record
from tocsin.load.verdict import Acknowledged, Verdict, judge
from tocsin.values import Position


def channel(numbers: range, epoch: str = "e", before: int = 0) -> Acknowledged:
    """Publications that were acknowledged, the first at ``before + 1``; without an epoch, no log."""
    acknowledged = Acknowledged()
    for number in numbers:
        offset = before + number - numbers[0] + 1
        acknowledged.add(number, Position(offset, epoch) if epoch else None)
    return acknowledged


def record(*heard: int) -> Record:
    result = Record(0)
    for number in heard:
        result.hear(number)
    return result


def verdict(record: Record, channel: Acknowledged, *, is_connected: bool = True) -> Verdict:
    return judge([record.account(is_connected=is_connected)], [channel])


def test_who_heard_everything_once_and_in_order_has_nothing_to_complain_of() -> None:
    found = verdict(record(1, 2, 3), channel(range(1, 4)))
    assert found == Verdict(expected=3)
    assert found.is_clean


def test_each_fault_is_counted_as_what_it_is() -> None:
    assert verdict(record(1, 3), channel(range(1, 4))) == Verdict(expected=3, lost=1)
    assert verdict(record(1, 2), channel(range(1, 4))) == Verdict(expected=3, lost=1)
    assert verdict(record(1, 2, 2, 3), channel(range(1, 4))) == Verdict(expected=3, duplicated=1)
    assert verdict(record(1, 3, 2), channel(range(1, 4))) == Verdict(expected=3, reordered=1)
    assert not any(v.is_clean for v in (Verdict(lost=1), Verdict(duplicated=1), Verdict(reordered=1)))


def test_what_was_never_acknowledged_is_owed_to_nobody_and_has_no_place() -> None:
    acknowledged = Acknowledged()
    for number, offset in ((1, 1), (3, 2)):
        acknowledged.add(number, Position(offset, "e"))
    assert verdict(record(1, 3), acknowledged) == Verdict(expected=2)
    assert verdict(record(1, 3, 2), acknowledged) == Verdict(expected=2, unacknowledged=1)


def test_a_hole_that_was_told_ends_at_its_position() -> None:
    """What is missing after the position is lost: the connection was told of no more."""
    told = record(1)
    told.miss("e", 13)
    told.hear(6)
    assert verdict(told, channel(range(1, 7), before=10)) == Verdict(expected=6, told=2, lost=2)


def test_a_hole_up_to_a_new_log_ends_where_that_begins() -> None:
    acknowledged = channel(range(1, 5))
    for number in (5, 6):
        acknowledged.add(number, Position(number - 4, "new"))
    told = record(1, 2)
    told.miss("new", 0)
    told.hear(6)
    assert verdict(told, acknowledged) == Verdict(expected=6, told=2, lost=1)


def test_a_hole_in_a_channel_without_a_log_ends_with_the_next_message() -> None:
    told = record(1)
    told.miss("", 0)
    told.hear(4)
    told.hear(6)
    assert verdict(told, channel(range(1, 7), epoch="")) == Verdict(expected=6, told=2, lost=1)


def test_who_hears_nothing_after_a_hole_is_owed_nothing_where_nobody_knows_its_end() -> None:
    told = record(1)
    told.miss("", 0)
    assert verdict(told, channel(range(1, 4), epoch="")) == Verdict(expected=3, told=2)


def test_who_came_late_is_owed_only_what_came_after() -> None:
    late = Record(0)
    late.miss("e", 3, is_start=True)
    late.hear(5)
    assert verdict(late, channel(range(1, 6))) == Verdict(expected=2, lost=1)


def test_what_connections_lost_that_never_came_back_is_lost_and_said_apart() -> None:
    found = verdict(record(1), channel(range(1, 4)), is_connected=False)
    assert found == Verdict(expected=3, lost=2, unheard_away=2)
