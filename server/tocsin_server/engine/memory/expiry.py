"""Deadlines: which keys lapse next, where times to live have few different lengths."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Deadlines(Generic[Key]):
    """One deadline for each key, put off again and again.

    Keys of one time to live lapse in the order in which they were set, so each length has a queue that sorts
    itself: setting costs the same however many there are, and a deadline that was put off leaves nothing
    behind, as it would in a heap. Lengths are few, since they come from the configuration.
    """

    __slots__ = ("_lengths", "_queues")

    def __init__(self) -> None:
        self._queues: dict[float, OrderedDict[Key, float]] = {}
        self._lengths: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def next(self) -> float:
        """The earliest deadline, or infinity."""
        return min((next(iter(queue.values())) for queue in self._queues.values()), default=math.inf)

    def put(self, key: Key, seconds: float, now: float) -> None:
        """Let `key` lapse `seconds` after `now`, instead of any earlier deadline. Times never go back."""
        if self._lengths.get(key) != seconds:
            self.cancel(key)
            self._lengths[key] = seconds
        queue = self._queues.setdefault(seconds, OrderedDict())
        queue[key] = now + seconds
        queue.move_to_end(key)

    def cancel(self, key: Key) -> None:
        """Let `key` never lapse. Idempotent."""
        length = self._lengths.pop(key, None)
        if length is not None:
            queue = self._queues[length]
            del queue[key]
            if not queue:
                del self._queues[length]

    def take(self, now: float) -> Key | None:
        """Take out a key whose deadline has come."""
        for queue in self._queues.values():
            key, deadline = next(iter(queue.items()))
            if deadline <= now:
                self.cancel(key)
                return key
        return None
