"""The driver in uvloop, as applications run it."""

from __future__ import annotations

import asyncio

import uvloop

from tocsin.driver import Driver
from tocsin.session import effects, events
from tocsin.session.session import Session


class Overdue(Session):
    """Its deadline has passed until the first `Timeout`."""

    timeouts = 0

    @property
    def deadline(self) -> float | None:
        return None if self.timeouts else 0.0

    def handle(self, event: events.SessionEvent, now: float) -> list[effects.Effect]:
        self.timeouts += isinstance(event, events.Timeout)
        return []


async def _feed_twice() -> int:
    session = Overdue(random=lambda: 0.0)
    driver = Driver(session, NotImplemented, {}, lambda event, size: None, lambda error: None)
    driver.feed(events.Start())
    driver.feed(events.Start())
    await asyncio.sleep(0.01)
    return session.timeouts


def test_a_deadline_that_has_passed_is_handled_once() -> None:
    """In uvloop the handle of a timer that is due at once has no time."""
    assert uvloop.run(_feed_twice()) == 1
