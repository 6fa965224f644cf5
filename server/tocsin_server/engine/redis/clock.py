"""The clock that all nodes share: the one of Redis, as each node reckons it from its own.

Machines' clocks differ by more than an announcement takes, and may jump. So a publication is stamped in
Redis' time by the node that publishes it, and whoever hears it translates the stamp into its own monotonic
time. Either is wrong by at most half of what asking Redis for the time took.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, NoReturn

from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.interfaces import Calls
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.errors import EngineError

LOOK_SECONDS = 1.0

LOOKS = 10
"""Of so many the one that took least time counts. Two clocks drift apart by microseconds meanwhile."""

UNKNOWN = 0
"""A stamp, or a moment, that nobody knows."""


class Look(NamedTuple):
    """What Redis' clock was ahead of this node's, and by how much that may be wrong; seconds."""

    ahead: float
    error: float

    def agrees(self, other: Look) -> bool:
        """Whether both can be true. If not, one of the clocks jumped, or it is another Redis."""
        return abs(self.ahead - other.ahead) <= self.error + other.error


class SharedClock:
    """Asked of the Redis that holds the leases, which is the same for all nodes."""

    def __init__(self, keys: Keys, calls: Calls, now: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._calls = calls
        self._now = now
        self._looks: deque[Look] = deque(maxlen=LOOKS)
        self._ahead: float | None = None

    def stamp(self) -> int:
        """This moment in microseconds of the shared clock, or UNKNOWN."""
        return UNKNOWN if self._ahead is None else round((self._now() + self._ahead) * 1e6)

    def moment(self, stamp: int) -> float:
        """When that was by this node's monotonic clock, in seconds, or UNKNOWN."""
        return UNKNOWN if self._ahead is None or stamp == UNKNOWN else stamp / 1e6 - self._ahead

    async def run(self) -> NoReturn:
        """Look at it until cancelled."""
        while True:
            with suppress(EngineError):
                await self._look()
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        asked_at = self._now()
        seconds, microseconds = await self._calls.run_script(scripts.TIME, [self._keys.nodes])
        answered_at = self._now()
        self.see(int(seconds) + int(microseconds) / 1e6, asked_at, answered_at)

    def see(self, shared: float, asked_at: float, answered_at: float) -> None:
        """Take what the shared clock showed at some moment between the two."""
        look = Look(shared - (asked_at + answered_at) / 2, (answered_at - asked_at) / 2)
        if not all(map(look.agrees, self._looks)):
            self._looks.clear()
        self._looks.append(look)
        self._ahead = min(self._looks, key=lambda one: one.error).ahead
