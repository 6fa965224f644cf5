"""The refusal log: why clients and callers were refused, for the operator, in few lines a second.

The reasons name no token, key or secret. The mutable state is how many lines may still be written and how
many were left out; only `write` changes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

BURST = 50
"""How many lines may follow each other at once."""

LINES_PER_SECOND = 2.0
"""How many lines a second an attack can cause: 170,000 a day, about 50 MB."""

log = structlog.get_logger()


class RefusalLog:
    """Writes one line for each refusal, as long as they are few; then a sample, with the number left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._allowance = float(BURST)
        self._updated_at = clock()
        self._left_out = 0

    def write(self, event: str, **fields: object) -> None:
        """Write a line at level info, or count it if too many were written."""
        now = self._clock()
        self._allowance = min(BURST, self._allowance + (now - self._updated_at) * LINES_PER_SECOND)
        self._updated_at = now
        if self._allowance < 1:
            self._left_out += 1
            return
        self._allowance -= 1
        left_out = {"left_out": self._left_out} if self._left_out else {}
        self._left_out = 0
        log.info(event, **fields, **left_out)
