"""Dropped messages: counts what a node received over pub/sub and did not accept, and logs it rarely."""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

LOG_SECONDS = 10.0
"""Each kind of dropped message is logged at most once in so many seconds: a flood must not fill the log."""

log = structlog.get_logger()


class DroppedMessages:
    """Counts dropped messages. The mutable state is the counts, and when each kind may be logged again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}
        self.forged = 0
        """How many messages had no valid signature, or were repeated."""

    def drop(self, event: str, **fields: object) -> None:
        """Count a dropped message, and log it unless one of its kind was logged a short time ago."""
        now = self._clock()
        logged_at = self._logged_at.get(event)
        if logged_at is not None and now - logged_at < LOG_SECONDS:
            self._unlogged[event] = self._unlogged.get(event, 0) + 1
            return
        self._logged_at[event] = now
        left_out = self._unlogged.pop(event, 0)
        log.warning(event, **fields, **({"left_out": left_out} if left_out else {}))

    def drop_forged(self, kind: str, reason: str) -> None:
        """Count and log a message that no node made, or that was repeated."""
        self.forged += 1
        self.drop("forged_message_dropped", kind=kind, reason=reason)
