"""A timer whose deadline mostly moves back costs the event loop few timers."""

from __future__ import annotations

import asyncio
import math
import weakref
from typing import cast

from tests.server.engine.virtual_time import VirtualTime, VirtualTimer
from tocsin_server.serving.lazy_timer import LazyTimer


class Loop:
    """What a LazyTimer uses of an event loop, in virtual time."""

    def __init__(self) -> None:
        self.time = VirtualTime()

    def call_at(self, at: float, call: object) -> VirtualTimer:
        return self.time.call_later(at - self.time.now, call)  # type: ignore[arg-type]


class Owner:
    """Has a deadline, and notes when it is checked."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.deadline = math.inf
        self.checked: list[float] = []
        self.timer = LazyTimer(cast("asyncio.AbstractEventLoop", self.loop), self.check)

    def check(self) -> float:
        self.checked.append(self.loop.time.now)
        return self.deadline if self.deadline > self.loop.time.now else math.inf

    def watch(self, deadline: float) -> None:
        self.deadline = deadline
        self.timer.watch(deadline)


def test_a_deadline_is_checked_when_it_is_reached() -> None:
    owner = Owner()
    owner.watch(5)
    owner.loop.time.advance(10)
    assert owner.checked == [5]
    assert owner.loop.time.scheduled == []


def test_a_deadline_that_moves_back_needs_no_other_timer() -> None:
    """The one that runs asks for the deadline when it ends."""
    owner = Owner()
    for deadline in range(5, 9):
        owner.watch(deadline)
        assert owner.loop.time.scheduled == [5]
    owner.loop.time.advance(6)
    assert owner.loop.time.scheduled == [8]
    owner.loop.time.advance(6)
    assert owner.checked == [5, 8]


def test_an_earlier_deadline_replaces_the_timer() -> None:
    owner = Owner()
    owner.watch(5)
    owner.watch(3)
    assert owner.loop.time.scheduled == [3]


def test_a_deadline_may_be_set_again_after_the_last_one_has_passed() -> None:
    owner = Owner()
    owner.watch(1)
    owner.loop.time.advance(2)
    owner.watch(4)
    owner.loop.time.advance(2)
    assert owner.checked == [1, 4]


def test_a_stopped_timer_checks_nothing_and_releases_its_owner() -> None:
    owner = Owner()
    loop, timer, found = owner.loop, owner.timer, weakref.ref(owner)
    owner.watch(1)
    timer.stop()
    timer.stop()
    assert loop.time.scheduled == []
    del owner
    assert found() is None
    timer.watch(2)
    assert loop.time.scheduled == []
