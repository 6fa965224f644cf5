"""A timer for deadlines that mostly move back before they are reached, such as those of each request.

A timer of the event loop costs more to make and to cancel than a request costs otherwise to parse. So one is
left running when its deadline moves back, and is started again when it is reached.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class LazyTimer:
    """Calls `check` at or soon after a deadline. `check` returns the next one, or infinity.

    The mutable state is the timer of the event loop and its time. After `stop`, nothing here refers to the
    owner of `check`.
    """

    __slots__ = ("_at", "_check", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, check: Callable[[], float]) -> None:
        self._loop = loop
        self._check: Callable[[], float] | None = check
        self._at = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def watch(self, deadline: float) -> None:
        """Call `check` at a deadline, in seconds of the loop's clock. Cheap if a call comes before it."""
        if deadline < self._at and self._check is not None:
            self._cancel()
            self._at = deadline
            self._handle = self._loop.call_at(deadline, self._run)

    def stop(self) -> None:
        """Call `check` no longer. Idempotent."""
        self._cancel()
        self._check = None

    def _run(self) -> None:
        self._handle, self._at = None, math.inf
        if self._check is not None:
            self.watch(self._check())

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._at = math.inf
