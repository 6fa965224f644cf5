"""Lifecycle events that wait to be written, bounded in bytes.

If too many wait, the pairs of which nothing was written are dropped: sessions, subscriptions and occupied
channels that came and went while the log could not be written. What is left is bounded by what exists now,
and by what existed when the log was last written.

The mutable state is the waiting events and their size. Only the methods of `WaitingEvents` change it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import chain

from tocsin_server.core.lifecycle import LifecycleEvent

EVENT_BYTES = 300
"""What an event takes without its texts."""

_BEGINS = {"disconnected": "connected", "unsubscribed": "subscribed", "vacated": "occupied"}


class WaitingEvents:
    """Events in their order. From `limit_bytes` on, pairs are dropped."""

    def __init__(self, limit_bytes: int) -> None:
        self._events: deque[LifecycleEvent] = deque()
        self._limit_bytes = limit_bytes
        self._drop_at = limit_bytes
        self._bytes = 0
        self._kept: set[str] = set()  # ids of events that may have been written before
        self.dropped_count = 0
        """How many events were dropped."""

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[LifecycleEvent]:
        return iter(self._events)

    def add(self, event: LifecycleEvent) -> None:
        """Add the newest event."""
        self._events.append(event)
        self._bytes += _size(event)
        if self._bytes > self._drop_at:
            self._drop_pairs()

    def take(self, limit: int) -> Sequence[LifecycleEvent]:
        """Remove and return the oldest events, at most `limit`."""
        taken = [self._events.popleft() for _ in range(min(limit, len(self._events)))]
        self._bytes -= sum(map(_size, taken))
        self._kept.difference_update(event.id for event in taken)
        if not self._events:
            self._drop_at = self._limit_bytes
        return taken

    def put_back(self, older: Sequence[LifecycleEvent]) -> None:
        """Add events that precede the waiting ones. They may have been written, so they are not dropped."""
        self._kept.update(event.id for event in older)
        self._replace(chain(older, self._events))

    def remove(self, is_unwanted: Callable[[LifecycleEvent], bool]) -> list[LifecycleEvent]:
        """Remove events, and return them."""
        removed = [event for event in self._events if is_unwanted(event)]
        self._replace(event for event in self._events if not is_unwanted(event))
        self._kept.difference_update(event.id for event in removed)
        return removed

    def _replace(self, events: Iterable[LifecycleEvent]) -> None:
        self._events = deque(events)
        self._bytes = sum(map(_size, self._events))

    def _drop_pairs(self) -> None:
        """Drop pairs. The next time is when as many bytes as are left, or the limit, have been added."""
        before = len(self._events)
        self._replace(without_pairs(self._events, self._kept))
        self.dropped_count += before - len(self._events)
        self._drop_at = max(self._limit_bytes, 2 * self._bytes)


def without_pairs(waiting: Iterable[LifecycleEvent], kept_ids: Container[str] = ()) -> list[LifecycleEvent]:
    """The events without each end that follows its beginning, and without that beginning.

    Beginnings with `kept_ids` stay, and so do their ends. Of a session that began and ended, nothing is left.
    Of several `cache_empty` of a channel, the last is.
    """
    kept: dict[str, LifecycleEvent] = {}
    begun: dict[tuple[str, str, str], str] = {}
    cache_empty: dict[str, str] = {}
    of_session: dict[str, list[str]] = {}
    for event in waiting:
        client, channel = event.client, event.channel
        kept[event.id] = event
        if event.id in kept_ids:
            continue
        if event.type == "connected":
            of_session[client] = []
        if client in of_session:
            of_session[client].append(event.id)
        if event.type == "cache_empty":
            kept.pop(cache_empty.get(channel, ""), None)
            cache_empty[channel] = event.id
        beginning = _BEGINS.get(event.type)
        if beginning is None:
            begun[event.type, client, channel] = event.id
            continue
        first = begun.pop((beginning, client, channel), None)
        if first is not None:
            del kept[first], kept[event.id]
        if first is not None and event.type == "disconnected":
            for event_id in of_session.pop(client, ()):
                kept.pop(event_id, None)
    return list(kept.values())


def _size(event: LifecycleEvent) -> int:
    return EVENT_BYTES + len(event.user) + len(event.channel) + len(event.reason)
