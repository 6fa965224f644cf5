"""The log lines of closed connections: at level debug one for each, at level info one for many.

A drain of 10,000 clients is one line for an operator. At level info the fields of a connection's own line are
not even made: the standard library's logger says which level is on. The mutable state is the sums since the
last line and the timer of the next one; only this module changes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping

import structlog

from tocsin_server.errors import Disconnect

SUM_SECONDS = 10.0
"""How long closed connections are added up for one line."""

log = structlog.get_logger()


class ClosedConnections:
    """The connections that a node closed."""

    def __init__(self) -> None:
        self._lines = logging.getLogger(__name__)
        self._codes: Counter[int] = Counter()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, why: Disconnect, who: Callable[[], Mapping[str, object]]) -> None:
        """Count a connection that is being closed. `who` returns the fields that name its client."""
        if self._lines.isEnabledFor(logging.DEBUG):
            log.debug("connection_closed", **who(), code=why.code, reason=why.reason)
        self._codes[why.code] += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SUM_SECONDS, self.write)

    def write(self) -> None:
        """Write the line of the connections that were closed since the last one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._codes:
            codes = {str(code): count for code, count in sorted(self._codes.items())}
            log.info("connections_closed", count=self._codes.total(), codes=codes)
            self._codes.clear()
