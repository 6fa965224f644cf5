"""Callers of the HTTP API: who a key belongs to, what it may do, and how much of it at a time.

The mutable state is that of each `Caller`: what it has used of its rate, and its requests that run or wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tocsin_server import errors
from tocsin_server.config.options import ApiOptions
from tocsin_server.core.glob import Glob
from tocsin_server.core.rate_limit import NEVER_USED, RateLimit
from tocsin_server.errors import Refused

WAITING_FACTOR = 10
"""How many requests of a caller may wait for each that may run."""


class LimitReached(Exception):
    """A limit of the caller refused a request. `limit` is its key in the configuration."""

    def __init__(self, limit: str, reason: str, retry_after_seconds: float) -> None:
        super().__init__(reason)
        self.refusal = errors.because(errors.TOO_MANY_REQUESTS, reason)
        self.limit = limit
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True)
class Scope:
    """What a caller may do. Without methods or channels, these are not limited."""

    methods: frozenset[str] = frozenset()
    channels: Sequence[Glob] = ()

    @cached_property
    def is_limited(self) -> bool:
        """Whether there is anything that the caller may not do."""
        return bool(self.methods or self.channels)

    def has_method(self, method: str) -> bool:
        """Whether a method may be called."""
        return not self.methods or method in self.methods

    def has_channel(self, channel: str) -> bool:
        """Whether a channel may be named. An empty name, which means all channels, is not a channel."""
        return not self.channels or (bool(channel) and any(glob.matches(channel) for glob in self.channels))


@dataclass
class Caller:
    """The owner of a key, for as long as the node runs."""

    name: str
    """As in logs and metrics; never the key."""
    options: ApiOptions
    scope: Scope = Scope()
    expires_at: float | None = None
    """The unix second from which on its keys are not valid; None for never."""
    calls_per_second: float = 0
    full_at: float = NEVER_USED
    running: int = 0
    """How many requests run."""
    at_most: int = field(init=False)
    """How many may run."""
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.at_most = self.options.concurrent_requests

    def check(self, method: str, channel: str | None) -> None:
        """Raise Refused with 103 unless the caller may call a method, and for this channel if it has one."""
        if not self.scope.has_method(method):
            raise Refused(self._denied(f"may not call {method}"))
        if channel is not None and not self.scope.has_channel(channel):
            subject = "that channel" if channel else "every channel at once"
            raise Refused(self._denied(f"may not call {method} for {subject}"))

    def take(self, calls: int, now: float) -> None:
        """Use the rate for a request of so many calls. `now` is monotonic. Raises LimitReached or Refused."""
        if not self.calls_per_second:
            return
        rate = RateLimit(self.calls_per_second, self.options.calls_burst)
        if calls > rate.burst:
            reason = f"more than api.calls_burst ({self.options.calls_burst}) calls"
            raise Refused(errors.bad_request(reason))
        full_at = rate.take(self.full_at, now, calls)
        if full_at is None:
            raise LimitReached(
                "api.calls_per_second",
                f"more than {rate.rate:g} calls per second with this key",
                rate.seconds_until(self.full_at, now, calls),
            )
        self.full_at = full_at

    def enter_now(self) -> bool:
        """Whether another request of the caller may run now. Then `leave` must follow when it has ended."""
        if self.running >= self.at_most:
            return False
        self.running += 1
        return True

    async def enter(self) -> None:
        """Wait until another request of the caller may run. `leave` must follow when it has ended.

        Raises LimitReached if too many wait.
        """
        if self.enter_now():
            return
        if len(self._waiting) >= WAITING_FACTOR * self.at_most:
            raise LimitReached("api.concurrent_requests", "too many requests with this key at a time", 1.0)
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():  # it was given the place
                self.leave()
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    def leave(self, _error: BaseException | None = None) -> None:
        """Let another request of the caller run: the first that waits. Can be a step of a future."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self.running -= 1

    def is_expired(self) -> bool:
        """Whether its keys are not valid any longer."""
        return self.expires_at is not None and time.time() >= self.expires_at

    def _denied(self, reason: str) -> errors.Refusal:
        return errors.because(errors.PERMISSION_DENIED, f'the API key "{self.name}" {reason}')
