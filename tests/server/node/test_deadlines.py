"""The queue of deadlines: one timer, and each owner is handled when its deadline comes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.server.engine.virtual_time import VirtualTime
from tocsin_server.node import deadlines as deadlines_module
from tocsin_server.node.deadlines import DUE_PER_TURN, TIMER_SECONDS, DeadlineQueue


@dataclass(eq=False)
class Owner:
    """An owner of a deadline."""

    deadline: float | None


class DeadlineRecorder:
    """A queue on a virtual clock. `handled` records when each owner was handled; it then has no deadline."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.handled: list[tuple[float, Owner]] = []
        self.queue: DeadlineQueue[Owner] = DeadlineQueue(
            self.handle, lambda owner: owner.deadline, self.time.clock
        )

    def handle(self, owner: Owner) -> None:
        self.handled.append((self.time.now, owner))
        owner.deadline = None

    def add(self, deadline: float | None) -> Owner:
        owner = Owner(deadline)
        self.queue.update(owner)
        return owner

    def move(self, owner: Owner, deadline: float | None) -> None:
        owner.deadline = deadline
        self.queue.update(owner)

    def is_empty(self) -> bool:
        entries = self.queue._heap or self.queue._owners or self.queue._entries
        return not entries and not self.time.scheduled and not len(self.queue)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> DeadlineRecorder:
    return new_recorder(monkeypatch)


def new_recorder(monkeypatch: pytest.MonkeyPatch) -> DeadlineRecorder:
    recorder = DeadlineRecorder()
    monkeypatch.setattr(deadlines_module, "asyncio", SimpleNamespace(get_running_loop=lambda: recorder.time))
    return recorder


def test_an_owner_is_handled_once_when_its_deadline_comes(recorder: DeadlineRecorder) -> None:
    owner = recorder.add(5)
    recorder.time.advance(4.9)
    assert recorder.handled == []
    recorder.time.advance(10)
    assert recorder.handled == [(5, owner)]
    assert recorder.is_empty()


def test_a_deadline_in_the_past_is_handled_in_the_next_turn(recorder: DeadlineRecorder) -> None:
    """Not inside `update`, whose caller may be in the middle of a change."""
    recorder.time.advance(10)
    owner = recorder.add(3)
    assert recorder.handled == []
    recorder.time.advance(0)
    assert recorder.handled == [(10, owner)]


def test_deadlines_that_come_together_are_handled_in_several_turns(recorder: DeadlineRecorder) -> None:
    """The tokens of thousands of clients may expire in one second."""
    count = 3 * DUE_PER_TURN
    for _ in range(count):
        recorder.add(5)
    recorder.time.now = 5
    handled = []
    for _ in range(3):
        recorder.time.step()
        handled.append(len(recorder.handled))
    assert handled == [DUE_PER_TURN, 2 * DUE_PER_TURN, count]
    recorder.time.advance(0)
    assert recorder.is_empty()


def test_an_owner_without_a_deadline_takes_no_entry(recorder: DeadlineRecorder) -> None:
    recorder.add(None)
    assert recorder.is_empty()


def test_a_deadline_that_moved_later_is_handled_at_the_later_time(recorder: DeadlineRecorder) -> None:
    """It is not handled at the old time, and needs no second entry."""
    owner = recorder.add(5)
    for second in range(6):
        recorder.move(owner, 5 + second)
    assert len(recorder.queue._heap) == 1
    recorder.time.advance(9)
    assert recorder.handled == []
    recorder.time.advance(5)
    assert recorder.handled == [(10, owner)]
    assert recorder.is_empty()


def test_a_deadline_that_moved_earlier_is_handled_once(recorder: DeadlineRecorder) -> None:
    owner = recorder.add(50)
    recorder.move(owner, 5)
    recorder.time.advance(5)
    assert recorder.handled == [(5, owner)]
    recorder.move(owner, 100)
    recorder.time.advance(50)
    assert recorder.handled == [(5, owner)], "the first deadline is not handled"
    recorder.time.advance(50)
    assert recorder.handled == [(5, owner), (100, owner)]


def test_a_removed_deadline_is_not_handled(recorder: DeadlineRecorder) -> None:
    owner = recorder.add(5)
    recorder.move(owner, None)
    recorder.time.advance(10)
    assert recorder.handled == []
    assert recorder.is_empty()


def test_a_removed_owner_is_not_referenced(recorder: DeadlineRecorder) -> None:
    """The entry that stays until its time holds a number, not the owner."""
    owner = recorder.add(5)
    other = recorder.add(6)
    recorder.queue.remove(owner)
    assert list(recorder.queue._owners.values()) == [other]
    recorder.time.advance(10)
    assert recorder.handled == [(6, other)]
    assert recorder.is_empty()


def test_removing_an_unknown_owner_does_nothing(recorder: DeadlineRecorder) -> None:
    recorder.queue.remove(Owner(1))
    assert recorder.is_empty()


def test_many_owners_share_one_timer(recorder: DeadlineRecorder) -> None:
    """They are handled in the order of their deadlines."""
    generator = random.Random(7)
    owners = [recorder.add(generator.uniform(1, 100)) for _ in range(1000)]
    expected = sorted(((owner.deadline or 0, owner) for owner in owners), key=lambda pair: pair[0])
    assert len(recorder.time.scheduled) == 1
    recorder.time.advance(50)
    assert len(recorder.time.scheduled) == 1
    recorder.time.advance(50)
    assert [owner for _, owner in recorder.handled] == [owner for _, owner in expected]
    lateness = [when - deadline for (when, _), (deadline, _) in zip(recorder.handled, expected, strict=True)]
    assert all(-1e-9 <= late <= TIMER_SECONDS + 1e-9 for late in lateness)
    assert recorder.is_empty()


def test_owners_may_be_updated_and_removed_by_a_handler(recorder: DeadlineRecorder) -> None:
    """The first of two simultaneous owners removes the second, and adds a third that is also due."""
    late = Owner(5)

    def handle(owner: Owner) -> None:
        recorder.handle(owner)
        if owner is first:
            recorder.queue.remove(second)
            recorder.queue.update(late)

    recorder.queue._on_due = handle
    first, second = recorder.add(5), recorder.add(5)
    recorder.time.advance(5)
    assert recorder.handled == [(5, first), (5, late)]
    assert recorder.is_empty()


def test_a_handled_owner_may_have_another_deadline(recorder: DeadlineRecorder) -> None:
    """As with pings."""
    handled: list[float] = []

    def handle(owner: Owner) -> None:
        handled.append(recorder.time.now)
        owner.deadline = recorder.time.now + 25

    recorder.queue._on_due = handle
    recorder.add(10)
    recorder.time.advance(100)
    assert handled == [10, 35, 60, 85]
    assert len(recorder.queue._heap) == len(recorder.time.scheduled) == 1


def test_a_handler_that_raises_does_not_stop_the_queue(recorder: DeadlineRecorder) -> None:
    """The owners share one timer, so an error in one must not affect the others."""

    def handle(owner: Owner) -> None:
        if owner is broken:
            raise RuntimeError("broken")
        recorder.handle(owner)

    recorder.queue._on_due = handle
    broken, simultaneous, later = recorder.add(5), recorder.add(5), recorder.add(7)
    with pytest.raises(RuntimeError):
        recorder.time.advance(5)
    recorder.time.advance(5)
    assert [owner for _, owner in recorder.handled] == [simultaneous, later]


def test_after_stop_no_deadline_is_handled(recorder: DeadlineRecorder) -> None:
    for deadline in (1, 2, 3):
        recorder.add(deadline)
    recorder.queue.stop()
    assert recorder.is_empty()
    recorder.time.advance(10)
    assert recorder.handled == []


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("move"), st.integers(0, 3), st.one_of(st.none(), st.integers(0, 20))),
        st.tuples(st.just("remove"), st.integers(0, 3), st.none()),
        st.tuples(st.just("advance"), st.integers(0, 10), st.none()),
    )
)


@given(STEPS)
def test_each_owner_is_handled_exactly_when_due(steps: list[tuple[str, int, int | None]]) -> None:
    """Compared with a model that checks every owner."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        recorder = new_recorder(monkeypatch)
        owners = [Owner(None) for _ in range(4)]
        due: dict[int, float] = {}
        expected: list[tuple[float, int]] = []
        for step, number, seconds in steps:
            if step == "move":
                deadline = None if seconds is None else recorder.time.now + seconds
                recorder.move(owners[number], deadline)
                due.pop(number, None)
                due.update({} if deadline is None else {number: deadline})
            elif step == "remove":
                recorder.queue.remove(owners[number])
                due.pop(number, None)
            else:
                end = recorder.time.now + number
                expected += [(when, owner) for owner, when in due.items() if when <= end]
                due = {owner: when for owner, when in due.items() if when > end}
                recorder.time.advance(number)
        handled = [(when, owners.index(owner)) for when, owner in recorder.handled]
        assert sorted(handled) == sorted(expected)
        assert len(recorder.time.scheduled) <= 1
