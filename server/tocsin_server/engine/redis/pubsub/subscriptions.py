"""Subscriptions: which names a pub/sub connection must subscribe to, and which Redis has confirmed.

A change of one name, to subscribe or to unsubscribe, passes through these states:

    subscribe() | unsubscribe() --> pending --next_command()--> in flight --confirm()--> confirmed

For each name, the last change counts. A change that is still pending is replaced by the next one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from tocsin_server.engine.redis.interfaces import OnMessage

NAMES_PER_COMMAND = 200
"""How many names one command contains.

A thousand channels need few commands, and none delays Redis for long.
"""

MAX_UNCONFIRMED_NAMES = 2000
"""How many names may be in flight. This bounds the memory for a Redis that reads nothing."""


class SubscribeCommand(NamedTuple):
    """The next command to send."""

    is_subscribe: bool
    names: list[bytes]


class PendingChange:
    """A change that Redis has not confirmed yet, and the futures of the callers that wait for it."""

    __slots__ = ("_waiters", "is_subscribe")

    def __init__(self, is_subscribe: bool) -> None:
        self.is_subscribe = is_subscribe
        self._waiters: list[asyncio.Future[None]] = []

    def wait(self) -> asyncio.Future[None]:
        """A future that is done when the change is confirmed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def share_waiters(self, other: PendingChange) -> None:
        """Let the callers that wait for another change be released by this one as well."""
        self._waiters += other._waiters

    def take_waiters(self, other: PendingChange) -> None:
        """Let the callers that wait for another change be released by this one only."""
        self.share_waiters(other)
        other._waiters = []

    def confirm(self) -> None:
        """Release all callers."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class RedisSubscriptions:
    """The subscriptions of one pub/sub connection, across reconnects. Synchronous, without I/O.

    The mutable state, and the methods that change it:

        _callbacks         wanted names
                           subscribe(), unsubscribe()
        _pending           changes that must be sent
                           subscribe(), unsubscribe(), next_command(), on_connected()
        _in_flight         changes that were sent, in order
                           next_command(), confirm(), on_connected()
        _last_in_flight    the newest of these for each name
                           next_command(), confirm(), on_connected()
        _confirmed         names of which Redis sends messages on this connection
                           confirm(), on_connected()
        _lost              names that an earlier connection received
                           on_connected(), take_restored()
        _restoring         names that were wanted when this connection began and are not confirmed yet
                           on_connected(), confirm()
    """

    def __init__(self) -> None:
        self._callbacks: dict[bytes, OnMessage] = {}
        self._confirmed: set[bytes] = set()
        self._pending: dict[bytes, PendingChange] = {}
        self._in_flight: deque[tuple[bytes, PendingChange]] = deque()
        self._last_in_flight: dict[bytes, PendingChange] = {}
        self._lost: set[bytes] = set()
        self._restoring: set[bytes] = set()

    def callback_for(self, name: bytes) -> OnMessage | None:
        """The callback for messages of a name, or None if the name is not wanted."""
        return self._callbacks.get(name)

    def subscribe(self, name: bytes, on_message: OnMessage) -> asyncio.Future[None] | None:
        """Subscribe to a name. Returns a future to await, or None if that is confirmed already."""
        self._callbacks[name] = on_message
        return self._change(name, is_subscribe=True)

    def unsubscribe(self, name: bytes) -> asyncio.Future[None] | None:
        """Unsubscribe from a name. Returns a future to await, or None if that is confirmed already."""
        self._callbacks.pop(name, None)
        return self._change(name, is_subscribe=False)

    def _change(self, name: bytes, *, is_subscribe: bool) -> asyncio.Future[None] | None:
        """Request a change.

        There are four cases:

        1. A change is pending: it becomes this change.
        2. The same change is in flight: wait for it.
        3. Nothing is pending or in flight, and Redis has confirmed this state: there is nothing to do.
        4. Otherwise this change becomes pending.
        """
        change = self._pending.pop(name, None)
        if change is None:
            in_flight = self._last_in_flight.get(name)
            if in_flight is not None and in_flight.is_subscribe == is_subscribe:
                return in_flight.wait()
            if in_flight is None and (name in self._confirmed) == is_subscribe:
                return None
            change = PendingChange(is_subscribe)
        change.is_subscribe = is_subscribe
        self._pending[name] = change
        return change.wait()

    # ------------------------------------------------------------------------------------------- connections

    def on_connected(self) -> None:
        """A new connection is subscribed to no name: all wanted names become pending."""
        changes = [*self._in_flight, *self._pending.items()]
        self._lost |= self._confirmed
        self._confirmed.clear()
        self._in_flight.clear()
        self._last_in_flight.clear()
        self._pending = {name: PendingChange(is_subscribe=True) for name in self._callbacks}
        for name, change in changes:
            if name in self._pending:
                self._pending[name].share_waiters(change)
            else:
                change.confirm()
        self._restoring = set(self._pending)

    def next_command(self) -> SubscribeCommand | None:
        """The next command to send, or None. Its changes count as in flight from here on."""
        if not self.has_pending:
            return None
        names: list[bytes] = []
        is_subscribe = next(iter(self._pending.values())).is_subscribe
        for name, change in self._pending.items():
            if change.is_subscribe != is_subscribe or len(names) == NAMES_PER_COMMAND:
                break
            names.append(name)
        for name in names:
            change = self._pending.pop(name)
            self._in_flight.append((name, change))
            self._last_in_flight[name] = change
        return SubscribeCommand(is_subscribe, names)

    def confirm(self, name: bytes) -> None:
        """Redis confirmed the oldest change in flight. Raises ValueError if that is not of this name."""
        expected, change = self._in_flight.popleft()
        if expected != name:
            raise ValueError("Redis confirmed another subscription than expected")
        if self._last_in_flight.get(name) is change:
            del self._last_in_flight[name]
        if change.is_subscribe:
            self._confirmed.add(name)
        else:
            self._confirmed.discard(name)
        self._restoring.discard(name)
        change.confirm()

    @property
    def has_pending(self) -> bool:
        """Whether a command can be sent now."""
        return bool(self._pending) and len(self._in_flight) < MAX_UNCONFIRMED_NAMES

    @property
    def is_restored(self) -> bool:
        """Whether all names are confirmed that were wanted when this connection began."""
        return not self._restoring

    @property
    def restoring_count(self) -> int:
        """How many of these names are not confirmed yet."""
        return len(self._restoring)

    def take_restored(self) -> list[bytes]:
        """The names that an earlier connection received and this one receives again.

        Each is returned once.
        """
        restored = [name for name in self._lost if name in self._confirmed]
        self._lost.clear()
        return restored
