"""The driver under uvloop, as applications run it."""

from __future__ import annotations

import asyncio

import uvloop

from tocsin.driver import Driver
from tocsin.session import effects, events
from tocsin.session.session import Session


class Overdue(Session):
    """Its deadline has passed until a tick."""

    ticks = 0

    @property
    def deadline(self) -> float | None:
        return None if self.ticks else 0.0

    def handle(self, event: events.SessionEvent, now: float) -> list[effects.Effect]:
        self.ticks += isinstance(event, events.Timeout)
        return []


async def _hear_twice() -> int:
    session = Overdue(random=lambda: 0.0)
    driver = Driver(session, NotImplemented, {}, lambda event, size: None, lambda error: None)
    driver.feed(events.Start())
    driver.feed(events.Start())
    await asyncio.sleep(0.01)
    return session.ticks


def test_a_deadline_that_has_passed_is_kept_once_whatever_happens_before() -> None:
    """A timer that is due at once has, from uvloop, a handle without a time."""
    assert uvloop.run(_hear_twice()) == 1
