r"""How a worker accepts connections of the sockets that all workers of its pool listen on.

    accepts --has its share, or others suffice--> rests --woken, or connections wait--> accepts

The kernel wakes all processes that wait for a common socket, for each connection, and those that are faster
would take most. So as few workers accept as suffice. One that finds more connections than it accepts
together wakes another one; one that is woken in vain rests, unless it has the fewest connections.

A connection that no worker has accepted stays in the queue of its socket, so none is lost when a worker
rests, drains or dies.

The mutable state is that of `Acceptor`; only its methods change it.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import structlog

from tocsin_server.serving.connection_counts import ConnectionCounts
from tocsin_server.serving.listening import BACKLOG
from tocsin_server.serving.starting import Protocols, StartingConnections

ACCEPTED_TOGETHER = 8
"""How many connections of a socket one turn of the event loop accepts.

When a node dies, all its clients reconnect at once, and a busy loop has a few hundred turns a second. A
larger number would delay the clients that are connected already.
"""

LOOK_SECONDS = 0.2
"""How often a worker that rests looks whether connections wait."""

LONG_LOOKS = 5
"""After so many looks at which connections waited, a worker accepts them although it has its share.

Then the workers that should accept them are too busy, or hang.
"""

PAUSE_LOOKS = 5
"""How many looks a worker pauses that cannot accept, as because the machine has no file for it."""

log = structlog.get_logger()


class Share(NamedTuple):
    """Which worker of a pool this process is, and what it knows of the others."""

    counts: ConnectionCounts
    worker: int
    """From 0 on."""


class NotedConnections(set[Any]):
    """The connections of a worker. Calls `on_change` after each change of their number."""

    def __init__(self) -> None:
        super().__init__()
        self.on_change: Callable[[], None] = lambda: None

    def add(self, connection: object) -> None:
        """Add a connection."""
        super().add(connection)
        self.on_change()

    def discard(self, connection: object) -> None:
        """Remove a connection, if it has not been removed yet."""
        super().discard(connection)
        self.on_change()

    def remove(self, connection: object) -> None:
        """Remove a connection, as uvicorn's own WebSockets do. Raises KeyError."""
        super().remove(connection)
        self.on_change()


class Acceptor:
    """Accepts connections as long as its worker does not have its share. Made in a running event loop.

    `connections` are those that the worker has. The other workers know their number at once.
    """

    def __init__(self, share: Share, connections: NotedConnections, make_protocol: Protocols) -> None:
        self._counts, self._worker = share
        self._connections = connections
        connections.on_change = self._note
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[socket.socket, select.poll] = {}
        self.starting = StartingConnections(make_protocol, self._note)
        """Those that are accepted and have no protocol yet."""
        self._rests = False
        self._waited_looks = 0
        self._paused_looks = 0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections of these listening sockets from now on, and close the sockets at the end."""
        for listening in sockets:
            listening.setblocking(False)
            listening.listen(BACKLOG)
            self._sockets[listening] = waiting = select.poll()
            waiting.register(listening, select.POLLIN)
        self._loop.add_reader(self._counts.wake_file(self._worker), self._wake)
        self._note()
        self._begin()
        self._look()

    def close(self) -> None:
        """Stop accepting: connections that wait are for the other workers. Idempotent."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        self._loop.remove_reader(self._counts.wake_file(self._worker))
        self._remove_readers()
        for listening in self._sockets:
            listening.close()
        self._sockets = {}
        self._counts.leave(self._worker)

    # ---------------------------------------------------------------------------------- accepting and resting

    def _accept(self, listening: socket.socket) -> None:
        """Accept some of the connections that wait, as many as belong to this worker's share."""
        for accepted in range(ACCEPTED_TOGETHER):
            if self._counts.has_share(self._worker) and not self._helps:
                self._rest()
                return
            if accepted and not self._sockets[listening].poll(0):  # a seventh of what an accept in vain takes
                return
            try:
                sock, _ = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                if not accepted and not self._counts.is_needed(self._worker):
                    self._rest()
                return
            except OSError as error:
                self._pause(error)
                return
            self.starting.start(sock)
        self._counts.wake_one()

    def _note(self) -> None:
        """Let the others know how many connections this worker has, as long as it accepts some."""
        if self._sockets:
            self._counts.set(self._worker, len(self._connections) + len(self.starting))

    @property
    def _helps(self) -> bool:
        """Whether this worker accepts although it has its share, because connections wait for long."""
        return self._waited_looks >= LONG_LOOKS

    def _pause(self, error: OSError) -> None:
        """Rest for a while, because connections cannot be accepted here."""
        log.error("cannot_accept", error=error.strerror)
        self._paused_looks = PAUSE_LOOKS
        self._rest()

    def _wake(self) -> None:
        """Accept connections again, unless that failed a moment ago."""
        self._begin()
        if self._paused_looks:
            self._rest()

    def _begin(self) -> None:
        self._counts.begin(self._worker)
        self._rests = False
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)

    def _rest(self) -> None:
        """Leave connections to the others. If all rest now, the one with the fewest connections is woken."""
        self._rests = True
        self._remove_readers()
        self._counts.rest(self._worker)
        if not self._paused_looks and self._counts.is_needed(self._worker):
            self._counts.wake_one()

    def _remove_readers(self) -> None:
        for listening in self._sockets:
            self._loop.remove_reader(listening)

    # ------------------------------------------------------------------------------------------ regular looks

    def _look(self) -> None:
        """Accept if connections wait that others should have accepted."""
        self._timer = self._loop.call_later(LOOK_SECONDS, self._look)
        waits = self._rests and self._is_waiting()
        self._waited_looks = max(0, min(LONG_LOOKS, self._waited_looks + (1 if waits else -1)))
        self._paused_looks = max(0, self._paused_looks - 1)
        if waits and not self._paused_looks and (self._helps or not self._counts.has_share(self._worker)):
            self._begin()

    def _is_waiting(self) -> bool:
        """Whether a connection waits to be accepted."""
        return any(waiting.poll(0) for waiting in self._sockets.values())
