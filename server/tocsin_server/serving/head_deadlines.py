"""One timer for the time limit of all connections whose first request has not arrived yet.

The limit is the same for all, so they reach it in the order in which they came. Most are gone by then, and
cost neither a timer nor its cancellation.

The mutable state is the connections with their deadlines, and the timer. Only `HeadDeadlines` changes it.
"""

from __future__ import annotations

import asyncio
from itertools import takewhile
from typing import Protocol


class Waiting(Protocol):
    """A connection whose first request has not arrived yet."""

    def time_out(self) -> None:
        """End the connection because its time is over. It is removed already."""


class HeadDeadlines:
    """Calls `time_out` of each connection that was not removed within `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadlines: dict[Waiting, float] = {}  # in the order in which they come
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: Waiting) -> float:
        """Begin the time limit of a connection; return its end, by the clock of the event loop."""
        loop = asyncio.get_running_loop()
        deadline = self._deadlines[connection] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._check)
        return deadline

    def remove(self, connection: Waiting) -> None:
        """End the time limit of a connection. Does nothing if it has none."""
        self._deadlines.pop(connection, None)

    def _check(self) -> None:
        """End the connections that are due, and wait for the next one, if there is one."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = [
            connection for connection, _ in takewhile(lambda item: item[1] <= now, self._deadlines.items())
        ]
        for connection in due:
            del self._deadlines[connection]
        if self._deadlines:
            self._timer = loop.call_at(next(iter(self._deadlines.values())), self._check)
        for connection in due:
            connection.time_out()
