"""Owners whose deadlines are equally long are due in the order in which they came, by one timer."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest

from tests.server.engine.virtual_time import VirtualTime
from tocsin_server import equal_deadlines
from tocsin_server.equal_deadlines import EqualDeadlines


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    time = VirtualTime()
    loop = SimpleNamespace(
        time=time.clock,
        call_at=lambda at, call, *given: time.call_later(at - time.now, partial(call, *given)),
        call_later=lambda seconds, call, *given: time.call_later(seconds, partial(call, *given)),
    )
    monkeypatch.setattr(equal_deadlines, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    return time


class Due:
    """Notes when each owner is due."""

    def __init__(self, time: VirtualTime) -> None:
        self.at: dict[str, float] = {}
        self.deadlines = EqualDeadlines[str](10, lambda owner: self.at.update({owner: time.now}))


def test_each_owner_is_due_after_its_own_seconds(time: VirtualTime) -> None:
    due = Due(time)
    for owner in "abcd":
        assert due.deadlines.add(owner) == time.now + 10
        time.advance(2)
    due.deadlines.remove("b")
    assert len(time.scheduled) == 1
    time.advance(20)
    assert due.at == {"a": 10, "c": 14, "d": 16}
    assert not time.scheduled


def test_a_timer_whose_owners_are_gone_takes_none(time: VirtualTime) -> None:
    due = Due(time)
    due.deadlines.add("gone")
    due.deadlines.remove("gone")
    due.deadlines.remove("gone")
    time.advance(5)
    due.deadlines.add("late")
    time.advance(5)
    assert due.at == {}
    assert time.scheduled == [15]
    time.advance(5)
    assert due.at == {"late": 15}


def test_an_owner_may_begin_another_deadline_when_it_is_due(time: VirtualTime) -> None:
    ends: list[float] = []

    def begin_again(owner: str) -> None:
        ends.append(time.now)
        deadlines.add(owner)

    deadlines = EqualDeadlines[str](10, begin_again)
    deadlines.add("a")
    time.advance(30)
    assert ends == [10, 20, 30]


def test_none_is_due_once_the_deadlines_are_closed(time: VirtualTime) -> None:
    due = Due(time)
    due.deadlines.add("a")
    due.deadlines.close()
    assert not time.scheduled
    time.advance(20)
    assert due.at == {}
