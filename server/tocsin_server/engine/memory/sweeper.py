"""The sweeper: frees the memory of expired items. It has one timer, and none while no item can expire."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

ITEMS_PER_STEP = 200
"""How many items are freed before the event loop continues: well below a millisecond of work."""

SWEEP_PAUSE_SECONDS = 1.0
"""The pause between two sweeps, so that deadlines close together cost one. Readers never see the delay."""


class Expiring(Protocol):
    """A store whose items expire."""

    @property
    def next_deadline(self) -> float:
        """When memory can next be freed, or infinity."""

    def free_one(self, now: float) -> bool:
        """Free the memory of one expired item. Returns False if there is none."""


class Timer(Protocol):
    """The handle of a scheduled call, such as asyncio's TimerHandle."""

    def cancel(self) -> None:
        """Cancel the call."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Schedules one call after some seconds, in the same thread, as the event loop's `call_later` does."""


class Sweeper:
    """Owns the timer that frees expired items.

    The states are: idle --schedule()--> scheduled --_sweep()--> scheduled | idle; any --stop()--> stopped.
    """

    def __init__(self, stores: Sequence[Expiring], clock: Callable[[], float]) -> None:
        self._stores = stores
        self._clock = clock
        self._call_later: CallLater | None = None
        self._timer: Timer | None = None
        self._wakes_at = math.inf

    def start(self, call_later: CallLater) -> None:
        """Begin to sweep, including items that were stored before."""
        self._call_later = call_later
        self._schedule_next()

    def stop(self) -> None:
        """Stop sweeping. Idempotent."""
        self._call_later = None
        self._cancel()

    def schedule(self, deadline: float) -> None:
        """An item expires at `deadline`. This is cheap if a sweep is already scheduled before that."""
        if deadline < self._wakes_at and self._call_later:
            self._cancel()
            self._wakes_at = deadline
            self._timer = self._call_later(max(SWEEP_PAUSE_SECONDS, deadline - self._clock()), self._sweep)

    def _sweep(self) -> None:
        self._timer, self._wakes_at = None, math.inf
        now = self._clock()
        for _ in range(ITEMS_PER_STEP):
            if not any(store.free_one(now) for store in self._stores):
                self._schedule_next()
                return
        if self._call_later:
            self._wakes_at = now
            self._timer = self._call_later(0, self._sweep)

    def _schedule_next(self) -> None:
        self.schedule(min(store.next_deadline for store in self._stores))

    def _cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer, self._wakes_at = None, math.inf
