"""Which lifecycle events a subscriber wants: by type, and by channel (no state)."""

from __future__ import annotations

from collections.abc import Iterable

from tocsin_server.core.glob import Glob
from tocsin_server.core.lifecycle import LifecycleEvent


class EventFilter:
    """Types and channels of events. Without types all match; without globs all channels."""

    def __init__(self, types: Iterable[str], channels: Iterable[str]) -> None:
        self._types = frozenset(types)
        self._globs = [Glob(glob) for glob in channels]

    def matches(self, event: LifecycleEvent) -> bool:
        """Whether an event is wanted. The globs say nothing about events without a channel."""
        if self._types and event.type not in self._types:
            return False
        if not event.channel or not self._globs:
            return True
        return any(glob.matches(event.channel) for glob in self._globs)
