"""Log lines that many clients or channels can cause at once, in few lines a second.

Such as why clients and callers were refused; the reasons name no token, key or secret. Each kind of line is
sampled by itself, so that an attack of one kind hides no refusal of another. The mutable state is, for each
kind, when its burst is available again and how many lines were left out; only `write` changes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import structlog

from tocsin_server.core.rate_limit import NEVER_USED, RateLimit

BURST = 50
"""How many lines of a kind may follow each other at once."""

LINES_PER_SECOND = 2.0
"""How many lines of a kind an attack can cause a second: 170,000 a day, about 50 MB."""

Level = Literal["info", "warning", "error"]

log = structlog.get_logger()


class _Sample:
    """The lines of one kind: when its burst is available again, and how many were left out."""

    __slots__ = ("full_at", "left_out")

    def __init__(self) -> None:
        self.full_at = NEVER_USED
        self.left_out = 0


class SampledLog:
    """Writes each line, as long as they are few; then a sample, with the number left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate = RateLimit(LINES_PER_SECOND, BURST)
        self._samples: dict[tuple[str, str], _Sample] = {}

    def fault(self, event: str, **fields: Any) -> None:
        """Write an error with the traceback of the exception that is being handled."""
        self.write(event, level="error", exc_info=True, **fields)

    def write(self, event: str, *, limit: str = "", level: Level = "info", **fields: object) -> None:
        """Write a line, or count it if too many of its kind were written.

        The kind is the event, and for `limit_reached` also the limit. No other field is part of it, since
        clients choose their values. Empty fields are left out.
        """
        sample = self._samples.setdefault((event, limit), _Sample())
        full_at = self._rate.take(sample.full_at, self._clock())
        if full_at is None:
            sample.left_out += 1
            return
        sample.full_at = full_at
        given = {"limit": limit, **fields, "left_out": sample.left_out or None}
        sample.left_out = 0
        getattr(log, level)(
            event, **{name: value for name, value in given.items() if value not in ("", None)}
        )
