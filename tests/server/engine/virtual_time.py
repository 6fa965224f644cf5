"""Virtual time: a clock that only a test advances, and timers that follow it."""

from __future__ import annotations

import math
from collections.abc import Callable


class VirtualTimer:
    """A scheduled call."""

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call

    def cancel(self) -> None:
        self.at = math.inf


class VirtualTime:
    """The clock, in seconds since the test began."""

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
    def scheduled(self) -> list[float]:
        """The times of the calls that are still scheduled."""
        return sorted(timer.at for timer in self._timers if timer.at < math.inf)

    def advance(self, seconds: float) -> None:
        """Advance the clock, and make the scheduled calls at their times."""
        end = self.now + seconds
        while self.scheduled and self.scheduled[0] <= end:
            self.step()
        self.now = end

    def step(self) -> None:
        """Make the next scheduled call, at its time."""
        timer = min(self._timers, key=lambda timer: timer.at)
        self._timers.remove(timer)
        self.now = max(self.now, timer.at)
        timer.call()
