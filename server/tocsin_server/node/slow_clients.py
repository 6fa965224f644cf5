"""Clients that are behind: bytes are queued for them, because their sockets do not take them at once.

A client that takes too little for `send_timeout` is slow. Where the bytes queued for all clients exceed the
node's limit, those with the most queued bytes are slow. Both are disconnected. A history or a recovery waits
until its client is no longer behind.

The mutable state is the clients that are behind, how far each had got when its time began, who waits for
them, and one timer while there are any. Only the methods of `SlowClients` change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from tocsin_server.node.connection import BEHIND_BYTES

SWEEP_SECONDS = 0.25
"""How often clients that are behind are looked at."""

LEAST_BYTES = 16_384
"""What a client must take within `send_timeout`, unless less is queued: 1.6 KiB a second by default."""

LEAST_RATE = 65_536
"""Bytes a second at which a message may be taken whose progress cannot be seen."""

UNSEEN_BYTES = 1_048_576
"""Where progress cannot be seen, the kernel may have taken about as much for the client before."""

CLOSED = float("inf")


class ClientConnection(Protocol):
    """What is needed of a connection."""

    @property
    def is_behind(self) -> bool:
        """Whether bytes are queued that the socket does not take at once."""

    @property
    def queued_bytes(self) -> int:
        """How many bytes are queued for the client."""

    @property
    def taken_bytes(self) -> int:
        """A count that grows by every byte that the socket takes while the client is behind."""

    @property
    def sending_bytes(self) -> int:
        """The size of the message being sent, if it counts as taken only once all of it is; else 0."""


C = TypeVar("C", bound=ClientConnection)


class _Mark(NamedTuple):
    """When a client last had taken enough, what it had taken by then, and what was queued."""

    at: float
    taken: int
    queued: int


class SlowClients(Generic[C]):
    """Finds the slow ones among the clients that are behind.

    `on_slow(connection)` is called once for each that takes too little, `on_excess(connection)` for each
    that must be dropped at once because too much is queued in the process.
    """

    def __init__(
        self,
        *,
        send_timeout: float,
        limit_bytes: int,
        clock: Callable[[], float],
        on_slow: Callable[[C], None],
        on_excess: Callable[[C], None],
    ) -> None:
        self._send_timeout = send_timeout
        self._limit_bytes = limit_bytes
        self._clock = clock
        self._on_slow = on_slow
        self._on_excess = on_excess
        self._marks: dict[C, _Mark] = {}
        self._waiters: dict[C, list[asyncio.Future[None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Return how many clients are behind."""
        return len(self._marks)

    def add(self, connection: C) -> None:
        """Note that a client is behind. `remove` must follow, at the latest when its transport is gone."""
        if connection not in self._marks:
            self._marks[connection] = self._mark(connection)
            self._schedule()

    def remove(self, connection: C) -> None:
        """Note that a client is no longer behind, or gone."""
        self._marks.pop(connection, None)
        self.wake(connection)

    def wake(self, connection: C) -> None:
        """Let everything that waits for this client look at it again."""
        for waiter in self._waiters.pop(connection, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait_for_room(self, connection: C, is_closed: Callable[[], bool]) -> None:
        """Wait until few bytes are queued for a client, or it is closed."""
        while not is_closed() and (connection.is_behind or connection.queued_bytes > BEHIND_BYTES):
            if not connection.is_behind:
                await asyncio.sleep(0)  # the socket has not been offered them yet
                continue
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(connection, []).append(waiter)
            await waiter

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ------------------------------------------------------------------------------------------------- sweeps

    def _mark(self, connection: C) -> _Mark:
        return _Mark(self._clock(), connection.taken_bytes, connection.queued_bytes)

    def _schedule(self) -> None:
        if self._timer is None and self._marks:
            seconds = min(SWEEP_SECONDS, self._send_timeout / 4)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self.sweep()
        finally:
            self._schedule()

    def sweep(self) -> None:
        """Disconnect the clients that have taken too little, and those above the limit of the process."""
        now, total = self._clock(), 0
        for connection, mark in list(self._marks.items()):
            total += connection.queued_bytes
            if connection.taken_bytes - mark.taken >= min(LEAST_BYTES, mark.queued):
                if mark.at != CLOSED:
                    self._marks[connection] = self._mark(connection)
            elif now - mark.at >= self._send_timeout + _unseen_seconds(connection.sending_bytes):
                self._marks[connection] = mark._replace(at=CLOSED)  # its close is told to it once
                self._on_slow(connection)
        if total > self._limit_bytes:
            self._drop_the_largest(total)

    def _drop_the_largest(self, total: int) -> None:
        for connection in sorted(self._marks, key=lambda one: one.queued_bytes, reverse=True):
            if total <= self._limit_bytes:
                break
            total -= connection.queued_bytes
            self._on_excess(connection)


def _unseen_seconds(sending_bytes: int) -> float:
    """How long a client may take for a message whose progress cannot be seen."""
    return (sending_bytes + UNSEEN_BYTES) / LEAST_RATE if sending_bytes else 0.0
