"""A clock that stands still until a test moves it, and timers that go by it."""

from __future__ import annotations

import math
from collections.abc import Callable


class VirtualTimer:
    """A call that is still to come."""

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call

    def cancel(self) -> None:
        self.at = math.inf


class VirtualTime:
    """Seconds since the test began."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[VirtualTimer] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Callable[[], None]) -> VirtualTimer:
        timer = VirtualTimer(self.now + seconds, call)
        self._timers.append(timer)
        return timer

    @property
    def waiting(self) -> list[float]:
        """When the timers that are neither cancelled nor over will call."""
        return sorted(timer.at for timer in self._timers if timer.at < math.inf)

    def advance(self, seconds: float) -> None:
        """Let time pass, and the timers call at their moments."""
        end = self.now + seconds
        while self.waiting and self.waiting[0] <= end:
            timer = min(self._timers, key=lambda timer: timer.at)
            self._timers.remove(timer)
            self.now = timer.at
            timer.call()
        self.now = end
