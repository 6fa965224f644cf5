"""Idempotency keys in memory: the result of the first publish with each key."""

from __future__ import annotations

from tocsin_server.engine.broker import IDEMPOTENCY_SECONDS
from tocsin_server.engine.memory.expiry import ExpiryQueue
from tocsin_server.protocol.messages import Position


class IdempotencyKeys:
    """Positions by channel and key, for channels with and without history. A result is never replaced."""

    def __init__(self) -> None:
        self._results: dict[tuple[str, str], tuple[Position, float]] = {}
        self._expiry = ExpiryQueue[tuple[str, str]]()

    def __len__(self) -> int:
        return len(self._results)

    @property
    def next_deadline(self) -> float:
        """When memory can next be freed, or infinity."""
        return self._expiry.next_deadline

    def find(self, channel: str, key: str, now: float) -> Position | None:
        """The result that is remembered for a key, or None."""
        position, expires_at = self._results.get((channel, key), (None, now))
        return position if now < expires_at else None

    def remember(self, channel: str, key: str, position: Position, seconds: int, now: float) -> None:
        """Keep the result for a key. The caller has checked that `find` returns None."""
        self._results[channel, key] = (position, now + seconds)
        self._expiry.set((channel, key), seconds, now)

    def expire(self, channel: str, key: str, now: float) -> None:
        """Keep the result for a key for IDEMPOTENCY_SECONDS from now, if there is one."""
        position = self.find(channel, key, now)
        if position is not None:
            self.remember(channel, key, position, IDEMPOTENCY_SECONDS, now)

    def free_one(self, now: float) -> bool:
        """Free the memory of one expired result. Returns False if there is none."""
        expired = self._expiry.pop_expired(now)
        if expired is not None:
            del self._results[expired]
        return expired is not None
