"""Alarms: one timer, and everybody rings at the moment that is theirs when it comes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.engine.virtual_time import VirtualTime
from tocsin_server.node import deadlines as alarms_module
from tocsin_server.node.deadlines import DeadlineQueue


@dataclass(eq=False)
class Owner:
    """Somebody with a deadline."""

    deadline: float | None


class Bell:
    """Alarms on a clock that tests move; `rung` says who rang when. Who rang has no deadline any more."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.rung: list[tuple[float, Owner]] = []
        self.alarms: DeadlineQueue[Owner] = DeadlineQueue(
            self.ring, lambda owner: owner.deadline, self.time.clock
        )

    def ring(self, owner: Owner) -> None:
        self.rung.append((self.time.now, owner))
        owner.deadline = None

    def watch(self, deadline: float | None) -> Owner:
        owner = Owner(deadline)
        self.alarms.update(owner)
        return owner

    def move(self, owner: Owner, deadline: float | None) -> None:
        owner.deadline = deadline
        self.alarms.update(owner)

    def is_empty(self) -> bool:
        entries = self.alarms._heap or self.alarms._owners or self.alarms._entries
        return not entries and not self.time.scheduled and not len(self.alarms)


@pytest.fixture
def bell(monkeypatch: pytest.MonkeyPatch) -> Bell:
    return new_bell(monkeypatch)


def new_bell(monkeypatch: pytest.MonkeyPatch) -> Bell:
    bell = Bell()
    monkeypatch.setattr(alarms_module, "asyncio", SimpleNamespace(get_running_loop=lambda: bell.time))
    return bell


def test_an_owner_rings_once_when_its_deadline_has_come(bell: Bell) -> None:
    owner = bell.watch(5)
    bell.time.advance(4.9)
    assert bell.rung == []
    bell.time.advance(10)
    assert bell.rung == [(5, owner)]
    assert bell.is_empty()


def test_a_deadline_that_is_over_rings_with_the_next_turn(bell: Bell) -> None:
    """Not from inside `watch`: whoever watches is in the midst of something."""
    bell.time.advance(10)
    owner = bell.watch(3)
    assert bell.rung == []
    bell.time.advance(0)
    assert bell.rung == [(10, owner)]


def test_an_owner_without_a_deadline_costs_nothing(bell: Bell) -> None:
    bell.watch(None)
    assert bell.is_empty()


def test_a_deadline_that_moved_later_is_looked_at_again(bell: Bell) -> None:
    """It does not ring at the old moment, and moving it costs no second entry."""
    owner = bell.watch(5)
    for second in range(6):
        bell.move(owner, 5 + second)
    assert len(bell.alarms._heap) == 1
    bell.time.advance(9)
    assert bell.rung == []
    bell.time.advance(5)
    assert bell.rung == [(10, owner)]
    assert bell.is_empty()


def test_a_deadline_that_moved_earlier_rings_then_and_not_again(bell: Bell) -> None:
    owner = bell.watch(50)
    bell.move(owner, 5)
    bell.time.advance(5)
    assert bell.rung == [(5, owner)]
    bell.move(owner, 100)
    bell.time.advance(50)
    assert bell.rung == [(5, owner)], "the moment that was moved away from is nobody's"
    bell.time.advance(50)
    assert bell.rung == [(5, owner), (100, owner)]


def test_a_deadline_that_was_taken_back_does_not_ring(bell: Bell) -> None:
    owner = bell.watch(5)
    bell.move(owner, None)
    bell.time.advance(10)
    assert bell.rung == []
    assert bell.is_empty()


def test_a_dropped_owner_is_forgotten_at_once(bell: Bell) -> None:
    """What stays until its moment is a number, not the owner."""
    owner = bell.watch(5)
    other = bell.watch(6)
    bell.alarms.remove(owner)
    assert list(bell.alarms._owners.values()) == [other]
    bell.time.advance(10)
    assert bell.rung == [(6, other)]
    assert bell.is_empty()


def test_dropping_an_owner_that_is_not_watched_does_nothing(bell: Bell) -> None:
    bell.alarms.remove(Owner(1))
    assert bell.is_empty()


def test_many_owners_share_one_timer(bell: Bell) -> None:
    """Whatever their number, and they ring in the order of their deadlines."""
    chance = random.Random(7)
    owners = [bell.watch(chance.uniform(1, 100)) for _ in range(1000)]
    expected = sorted(((owner.deadline or 0, owner) for owner in owners), key=lambda pair: pair[0])
    assert len(bell.time.scheduled) == 1
    bell.time.advance(50)
    assert len(bell.time.scheduled) == 1
    bell.time.advance(50)
    assert [owner for _, owner in bell.rung] == [owner for _, owner in expected]
    assert [when for when, _ in bell.rung] == pytest.approx([deadline for deadline, _ in expected])
    assert bell.is_empty()


def test_owners_may_be_watched_and_dropped_while_the_bell_rings(bell: Bell) -> None:
    """The first of those due at one moment drops the second and watches another, which is due as well."""
    late = Owner(5)

    def ring(owner: Owner) -> None:
        bell.ring(owner)
        if owner is first:
            bell.alarms.remove(second)
            bell.alarms.update(late)

    bell.alarms._ring = ring
    first, second = bell.watch(5), bell.watch(5)
    bell.time.advance(5)
    assert bell.rung == [(5, first), (5, late)]
    assert bell.is_empty()


def test_who_rings_may_have_a_next_deadline(bell: Bell) -> None:
    """As every ping does."""
    rung: list[float] = []

    def ring(owner: Owner) -> None:
        rung.append(bell.time.now)
        owner.deadline = bell.time.now + 25

    bell.alarms._ring = ring
    bell.watch(10)
    bell.time.advance(100)
    assert rung == [10, 35, 60, 85]
    assert len(bell.alarms._heap) == len(bell.time.scheduled) == 1


def test_a_bell_that_fails_does_not_silence_the_others(bell: Bell) -> None:
    """One timer is everybody's, so it goes on whatever one owner does."""

    def ring(owner: Owner) -> None:
        if owner is broken:
            raise RuntimeError("broken")
        bell.ring(owner)

    bell.alarms._ring = ring
    broken, together, later = bell.watch(5), bell.watch(5), bell.watch(7)
    with pytest.raises(RuntimeError):
        bell.time.advance(5)
    bell.time.advance(5)
    assert [owner for _, owner in bell.rung] == [together, later]


def test_after_stop_nothing_rings_and_nothing_is_left(bell: Bell) -> None:
    for deadline in (1, 2, 3):
        bell.watch(deadline)
    bell.alarms.stop()
    assert bell.is_empty()
    bell.time.advance(10)
    assert bell.rung == []


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.integers(0, 3), st.one_of(st.none(), st.integers(0, 20))),
        st.tuples(st.just("drop"), st.integers(0, 3), st.none()),
        st.tuples(st.just("advance"), st.integers(0, 10), st.none()),
    )
)


@given(STEPS)
def test_everybody_rings_exactly_when_due(steps: list[tuple[str, int, int | None]]) -> None:
    """Against a model that looks at everybody every second."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        bell = new_bell(monkeypatch)
        owners = [Owner(None) for _ in range(4)]
        due: dict[int, float] = {}
        expected: set[tuple[float, int]] = set()
        for step, number, seconds in steps:
            if step == "move":
                deadline = None if seconds is None else bell.time.now + seconds
                bell.move(owners[number], deadline)
                due.pop(number, None)
                due.update({} if deadline is None else {number: deadline})
            elif step == "drop":
                bell.alarms.remove(owners[number])
                due.pop(number, None)
            else:
                end = bell.time.now + number
                expected |= {(when, owner) for owner, when in due.items() if when <= end}
                due = {owner: when for owner, when in due.items() if when > end}
                bell.time.advance(number)
        rung = [(when, owners.index(owner)) for when, owner in bell.rung]
        assert sorted(rung) == sorted(expected)
        assert len(bell.time.scheduled) <= 1
