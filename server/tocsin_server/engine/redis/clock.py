"""The shared clock: the time of Redis, which each node derives from its own monotonic clock.

The clocks of two machines differ by more than a message takes, and may jump. So the publishing node stamps
a publication in Redis' time, and a receiving node converts the stamp to its own monotonic time. Each
conversion is wrong by at most half of the time that reading Redis' clock took.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, NoReturn

from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.interfaces import Commands
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.errors import EngineError

SAMPLE_SECONDS = 1.0
"""The interval between two samples."""

SAMPLES = 10
"""Of so many samples the most exact one is used. In the meantime two clocks drift apart by microseconds."""

FIRST_SAMPLES = 5
"""A node takes at most so many samples when it starts."""

EXACT_SECONDS = 0.001
"""A sample with this error or a smaller one is exact enough to start with."""

UNKNOWN_TIME = 0
"""The value of an unknown stamp or monotonic time."""


class ClockSample(NamedTuple):
    """How far Redis' clock is ahead of this node's clock, and the largest possible error; in seconds."""

    ahead: float
    error: float

    def agrees_with(self, other: ClockSample) -> bool:
        """Whether both samples can be right. If not, a clock jumped, or another Redis answered."""
        return abs(self.ahead - other.ahead) <= self.error + other.error


class SharedClock:
    """Converts between this node's monotonic time and the time of the Redis that holds the leases.

    That Redis is the same for all nodes. The mutable state is the recent samples, and the difference and the
    error that are derived from them; only `add_sample` changes it.
    """

    def __init__(self, keys: Keys, commands: Commands, now: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._commands = commands
        self._now = now
        self._samples: deque[ClockSample] = deque(maxlen=SAMPLES)
        self._ahead: float | None = None
        self.error = 0.0
        """By how many seconds a conversion may be wrong."""

    def stamp(self) -> int:
        """The current shared time in microseconds, or UNKNOWN_TIME before the first sample."""
        return UNKNOWN_TIME if self._ahead is None else round((self._now() + self._ahead) * 1e6)

    def monotonic(self, stamp: int) -> float:
        """Convert a stamp to seconds of this node's monotonic clock. Returns UNKNOWN_TIME if it cannot."""
        return UNKNOWN_TIME if self._ahead is None or stamp == UNKNOWN_TIME else stamp / 1e6 - self._ahead

    async def start(self) -> None:
        """Take samples until one is exact enough. Raises EngineError."""
        for _ in range(FIRST_SAMPLES):
            await self.sample()
            if self.error <= EXACT_SECONDS:
                break

    async def run(self) -> NoReturn:
        """Take samples until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            with suppress(EngineError):
                await self.sample()

    async def sample(self) -> None:
        """Take one sample. Raises EngineError."""
        sent_at = self._now()
        seconds, microseconds = await self._commands.run_script(scripts.TIME, [self._keys.nodes])
        received_at = self._now()
        self.add_sample(int(seconds) + int(microseconds) / 1e6, sent_at, received_at)

    def add_sample(self, shared: float, sent_at: float, received_at: float) -> None:
        """Add a reading of the shared clock that was taken between two moments of this node's clock."""
        sample = ClockSample(shared - (sent_at + received_at) / 2, (received_at - sent_at) / 2)
        if not all(map(sample.agrees_with, self._samples)):
            self._samples.clear()
        self._samples.append(sample)
        self._ahead, self.error = min(self._samples, key=lambda one: one.error)
