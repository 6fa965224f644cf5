"""Connections that the server accepted itself, and not the event loop, until they have their protocol.

The mutable state is that of `StartingConnections`; only its methods change it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

Protocols = Callable[[], asyncio.BaseProtocol]
"""Makes the protocol of each connection that a socket accepts."""


class StartingConnections:
    """Gives accepted sockets to the running event loop. Its length is how many have no protocol yet.

    `on_change` is called after each change of that number.
    """

    def __init__(self, make_protocol: Protocols, on_change: Callable[[], None] = lambda: None) -> None:
        self._make_protocol = make_protocol
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many connections have no protocol yet."""
        return len(self._tasks)

    def start(self, accepted: socket.socket) -> None:
        """Let the event loop make the protocol of a connection, and read it."""
        accepted.setblocking(False)
        task = self._loop.create_task(self._start(accepted))
        self._tasks.add(task)
        self._on_change()
        task.add_done_callback(self._on_started)

    async def _start(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, accepted)
        except OSError:  # it has ended already
            accepted.close()

    def _on_started(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._on_change()
