"""Connections of addresses that connect too often: they stay open for a while, unread, and then are dropped.

A client that connects again as soon as it was dropped, by a fault or by intent, costs a node more than one
that waits. The mutable state is the transports that stay open. Only `RefusedConnections` changes it.
"""

from __future__ import annotations

import asyncio
import random

from tocsin_server.serving.open_files import socket_limit

REFUSED_SECONDS = (0.5, 1.5)
"""Minimum and maximum time that a refused connection stays open. Its client notices nothing before that.

The time is random, so that clients that were refused together do not come back together.
"""

REFUSED_LIMIT = 1000
"""How many stay open. Beyond them, and where sockets are scarce, connections are dropped at once."""


class RefusedConnections:
    """Drops connections later, as long as there are few."""

    def __init__(self) -> None:
        self._transports: set[asyncio.Transport] = set()

    def __len__(self) -> int:
        """Return how many stay open."""
        return len(self._transports)

    def drop(self, transport: asyncio.Transport) -> None:
        """Drop a connection of which nothing was read."""
        if len(self._transports) >= min(REFUSED_LIMIT, socket_limit() // 8):
            transport.abort()
            return
        transport.pause_reading()
        self._transports.add(transport)
        seconds = random.uniform(*REFUSED_SECONDS)  # noqa: S311 - spreads load, hides nothing
        asyncio.get_running_loop().call_later(seconds, self._abort, transport)

    def _abort(self, transport: asyncio.Transport) -> None:
        self._transports.discard(transport)
        transport.abort()
