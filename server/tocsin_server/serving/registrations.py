r"""How a server that is no worker accepts the connections of a listening socket.

    1 registration --full turns--> 2 --> 4 --> 8 --sparse turns--> 4 --> 2 --> 1

libuv accepts one connection in each turn of the event loop for each registration of a socket. A busy loop has
a few hundred turns a second, so a crowd would wait long for one registration. With eight, a connection that
comes alone costs seven calls of `accept` in vain. So their number follows the load.

asyncio's own loop accepts several connections in a turn, and needs one registration.

All registrations are duplicates of one file descriptor. Connections wait in the queue of the socket, so none
is lost when a registration ends.

The mutable state is that of `Registrations`; only its methods change it.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket

from tocsin_server.serving.accepting import ACCEPTED_TOGETHER
from tocsin_server.serving.listening import BACKLOG
from tocsin_server.serving.starting import Protocols, StartingConnections

FULL_TURNS = 4
"""The number of registrations is doubled after so many turns in a row in which each accepted a connection.

A turn with one registration counts only if another connection waits. A few clients at once change nothing.
"""

SPARSE_TURNS = 32
"""The number is halved after so many turns in a row that had connections for at most half of them.

Turns without a connection do not count: registrations cost nothing then.
"""


class Registrations:
    """The registrations of a listening socket in the running event loop."""

    def __init__(self, listening: socket.socket, make_protocol: Protocols) -> None:
        self._listening = listening
        self._make_protocol = make_protocol
        self.starting = StartingConnections(make_protocol)
        """Those of `accept_waiting` that have no protocol yet."""
        self._loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server] = []
        self._adding: asyncio.Task[None] | None = None
        self._accepted = 0
        self._full_turns = 0
        self._sparse_turns = 0

    @property
    def count(self) -> int:
        """How many there are: none before `start` and after `close`."""
        return len(self._servers)

    async def start(self) -> None:
        """Accept connections from now on. The socket is closed at the end."""
        if isinstance(self._loop, asyncio.BaseEventLoop):
            # Its `backlog` is both the length of the queue and how many connections a turn accepts
            await self._register(self._make_protocol, self._listening, ACCEPTED_TOGETHER)
            self._listening.listen(BACKLOG)
        else:
            self._waiting = select.poll()
            self._waiting.register(self._listening, select.POLLIN)
            await self._register(self._accept, self._listening, BACKLOG)

    def accept_waiting(self) -> None:
        """Accept every connection that waits in the queue of the socket.

        For a socket that no other process has, before it is closed: the kernel then resets those that wait.
        """
        if not self._servers:
            return
        for _ in range(BACKLOG):
            try:
                accepted, _ = self._listening.accept()
            except (ConnectionAbortedError, InterruptedError):
                continue
            except OSError:  # none waits any longer, or the process has no file descriptor for it
                return
            self.starting.start(accepted)

    def close(self) -> None:
        """Stop accepting. Idempotent."""
        if self._adding is not None:
            self._adding.cancel()
        self._keep(0)

    # -------------------------------------------------------------------------------------- turns of the loop

    def _accept(self) -> asyncio.BaseProtocol:
        """The protocol of a connection that the loop has just accepted."""
        if not self._accepted:
            self._loop.call_soon(self._end_turn)  # runs before the next turn accepts connections
        self._accepted += 1
        return self._make_protocol()

    def _end_turn(self) -> None:
        """Change the number of registrations, if enough turns in a row were full, or sparse."""
        accepted, self._accepted = self._accepted, 0
        count = self.count
        if not count:
            return
        self._full_turns = self._full_turns + 1 if self._was_full(accepted) else 0
        self._sparse_turns = self._sparse_turns + 1 if accepted * 2 <= count else 0
        if self._full_turns >= FULL_TURNS and count < ACCEPTED_TOGETHER:
            self._full_turns = 0
            self._adding = self._loop.create_task(self._add(min(count, ACCEPTED_TOGETHER - count)))
        elif self._sparse_turns == SPARSE_TURNS:
            self._sparse_turns = 0
            self._keep(count // 2)

    def _was_full(self, accepted: int) -> bool:
        """Whether a turn that accepted so many connections may have left others waiting."""
        return accepted >= self.count and (self.count > 1 or bool(self._waiting.poll(0)))

    # ----------------------------------------------------------------------------------- beginning and ending

    async def _add(self, count: int) -> None:
        """Add registrations, unless the process has no file descriptors for them."""
        with contextlib.suppress(OSError):
            for _ in range(count):
                await self._register(self._accept, self._listening.dup(), BACKLOG)

    async def _register(self, make_protocol: Protocols, listening: socket.socket, backlog: int) -> None:
        self._servers.append(await self._loop.create_server(make_protocol, sock=listening, backlog=backlog))

    def _keep(self, count: int) -> None:
        """End all registrations but the first ones."""
        for server in self._servers[count:]:
            server.close()
        del self._servers[count:]
