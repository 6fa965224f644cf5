"""The sweep: one timer that gives the memory of lapsed things back, and none while nothing can lapse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

STEP = 200
"""Things freed before the event loop gets its turn: well below a millisecond of work."""

PAUSE_SECONDS = 1.0
"""Between two rounds, so that many deadlines close together cost one. Readers never see the delay."""


class Lapsing(Protocol):
    """What holds things that lapse."""

    @property
    def deadline(self) -> float:
        """When there will be something to free; infinite if never."""

    def free(self, now: float) -> bool:
        """Free one lapsed thing; False if there is none."""


class Timer(Protocol):
    """What a call later can be taken back by; asyncio's TimerHandle."""

    def cancel(self) -> None:
        """Do not call."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Calls once, after seconds, from the same thread; the event loop's `call_later`."""


class Sweep:
    """idle --expect()--> waiting --run()--> waiting | idle; --stop()--> stopped."""

    def __init__(self, lapsing: Sequence[Lapsing], clock: Callable[[], float]) -> None:
        self._lapsing = lapsing
        self._clock = clock
        self._call_later: CallLater | None = None
        self._timer: Timer | None = None
        self._wakes_at = math.inf

    def start(self, call_later: CallLater) -> None:
        """Begin, also with what was expected before."""
        self._call_later = call_later
        self._rest()

    def stop(self) -> None:
        """Free nothing more. Idempotent."""
        self._call_later = None
        self._cancel()

    def expect(self, deadline: float) -> None:
        """Something will lapse at `deadline`. Cheap where something earlier is expected already."""
        if deadline < self._wakes_at and self._call_later:
            self._cancel()
            self._wakes_at = deadline
            self._timer = self._call_later(max(PAUSE_SECONDS, deadline - self._clock()), self._run)

    def _run(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        now = self._clock()
        for _ in range(STEP):
            if not any(lapsing.free(now) for lapsing in self._lapsing):
                self._rest()
                return
        if self._call_later:
            self._wakes_at = now
            self._timer = self._call_later(0, self._run)

    def _rest(self) -> None:
        self.expect(min(lapsing.deadline for lapsing in self._lapsing))

    def _cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer, self._wakes_at = None, math.inf
