"""The circuit breaker of one proxy: when its back end is called, and when calls are refused at once (pure).

    closed --faults in a row--> open --pause--> half open --answer--> closed
                                  ^                 |
                                  +------fault------+

Faults count by client: one client whose requests the back end cannot answer does not open the breaker. While
the breaker is half open, one call at a time is let through.

The mutable state is that of `Breaker`; only its methods change it. `now` is monotonic seconds.
"""

from __future__ import annotations

from enum import Enum


class BreakerState(Enum):
    """Whether calls are made."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts the faults of a back end. Each call that `begin` permits ends with one of the other methods."""

    def __init__(self, faults: int, pause: float) -> None:
        """Open after the faults of so many clients in a row (0: never), for `pause` seconds."""
        self._faults = faults
        self._pause = pause
        self._clients: set[str] = set()
        """The clients whose calls had faults since the last answer."""
        self._opened_at: float | None = None
        self._probing: str | None = None
        """The client whose call is let through while the breaker is half open."""
        self.last_fault = ""
        """Why the last call failed that had a fault."""

    @property
    def is_open(self) -> bool:
        """Whether the breaker is open or half open: no call had an answer since it opened."""
        return self._opened_at is not None

    @property
    def state(self) -> BreakerState:
        """The state, where a breaker whose pause is over is open until the next call."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._probing is None else BreakerState.HALF_OPEN

    def begin(self, client: str, now: float) -> bool:
        """Whether a call for this client may be made."""
        if self._opened_at is None:
            return True
        if self._probing is not None or now < self._opened_at + self._pause:
            return False
        self._probing = client
        return True

    def answered(self) -> bool:
        """Count a call that had an answer. True if that closes the breaker."""
        self._clients.clear()
        was_open = self.is_open
        self._opened_at = self._probing = None
        return was_open

    def failed(self, client: str, fault: str, now: float) -> bool:
        """Count a call that had a fault. True if that opens the breaker, which was closed."""
        self.last_fault = fault
        if self._opened_at is not None:
            if client == self._probing:
                self._opened_at, self._probing = now, None
            return False
        if self._faults:
            self._clients.add(client)
        if not self._faults or len(self._clients) < self._faults:
            return False
        self._clients.clear()
        self._opened_at = now
        return True

    def abandoned(self, client: str) -> None:
        """End a call without an outcome, because its client has left. The next call may be let through."""
        if client == self._probing:
            self._probing = None
