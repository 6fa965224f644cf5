"""The expiry queue: which keys expire next, for times to live that have few distinct lengths."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class ExpiryQueue(Generic[Key]):
    """One deadline for each key. Setting it again replaces the earlier deadline.

    Keys with the same time to live expire in the order in which they were set. So there is one ordered
    queue for each length, and setting a key costs the same however many keys there are. Unlike a heap, a
    queue keeps nothing of a replaced deadline. Lengths are few, since they come from the configuration.
    """

    __slots__ = ("_lengths", "_queues")

    def __init__(self) -> None:
        self._queues: dict[float, OrderedDict[Key, float]] = {}
        self._lengths: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def next_deadline(self) -> float:
        """The earliest deadline, or infinity if there is none."""
        return min((next(iter(queue.values())) for queue in self._queues.values()), default=math.inf)

    def set(self, key: Key, seconds: float, now: float) -> None:
        """Let `key` expire `seconds` after `now`. `now` must never decrease between calls."""
        if self._lengths.get(key) != seconds:
            self.cancel(key)
            self._lengths[key] = seconds
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = OrderedDict()
        queue[key] = now + seconds
        queue.move_to_end(key)

    def cancel(self, key: Key) -> None:
        """Remove the deadline of `key`. Idempotent."""
        length = self._lengths.pop(key, None)
        if length is not None:
            queue = self._queues[length]
            del queue[key]
            if not queue:
                del self._queues[length]

    def pop_expired(self, now: float, deadline_of: Callable[[Key], float] | None = None) -> Key | None:
        """Remove and return one expired key, or None if there is none.

        `deadline_of(key)` is when an expired key really expires, if the caller does not set each deadline.
        Those that expire behind it wait so long.
        """
        for queue in self._queues.values():
            key, deadline = next(iter(queue.items()))
            if deadline <= now and deadline_of is not None:
                deadline = queue[key] = deadline_of(key)  # the key stays the first
            if deadline <= now:
                self.cancel(key)
                return key
        return None
