"""Half-open connections: accepted, while the node waits for a complete request or for a connect command.

They cost their clients nothing, so there may be only so many. When one more comes, the oldest is dropped: a
client that means to connect is done in less time than thousands of others take to come. A connection that is
idle between two requests counts too, because it may be dropped at any time (RFC 9112 §9.3.1).

The module is pure. The mutable state is the connections in the order in which they began to wait; only the
methods of `HalfOpen` change it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

NODE_LIMIT = "limits.half_open_limit"
ADDRESS_LIMIT = "limits.address_half_open_limit"


class Droppable(Protocol):
    """A connection that can be half open."""

    def drop_half_open(self, limit: str) -> None:
        """End the connection because of this limit. It is no longer counted."""


class HalfOpen:
    """The half-open connections of a node, and of each address. A limit of 0 is none."""

    def __init__(self, limit: int, address_limit: int) -> None:
        self._limit = limit
        self._address_limit = address_limit
        self._connections: OrderedDict[Droppable, str] = OrderedDict()
        self._by_address: dict[str, OrderedDict[Droppable, None]] = {}

    def __len__(self) -> int:
        """Return how many connections are half open."""
        return len(self._connections)

    @property
    def addresses(self) -> int:
        """How many addresses have half-open connections that count."""
        return len(self._by_address)

    def add(self, connection: Droppable, key: str) -> None:
        """Count a connection of an address, and drop the oldest if there are too many. No key: no address.

        A connection that is counted already begins to wait again.
        """
        known = self._connections.get(connection)
        if known == key:
            self._connections.move_to_end(connection)
            if key:
                self._by_address[key].move_to_end(connection)
            return
        if known is not None:
            self.remove(connection)
        self._connections[connection] = key
        if key:
            of_address = self._by_address.get(key)
            if of_address is None:
                of_address = self._by_address[key] = OrderedDict()
            of_address[connection] = None
            if self._address_limit and len(of_address) > self._address_limit:
                self._drop(next(iter(of_address)), ADDRESS_LIMIT)
        if self._limit and len(self._connections) > self._limit:
            self.drop_oldest(NODE_LIMIT)

    def drop_oldest(self, limit: str) -> bool:
        """Drop the oldest connection because of a limit; False if there is none."""
        if not self._connections:
            return False
        self._drop(next(iter(self._connections)), limit)
        return True

    def remove(self, connection: Droppable) -> None:
        """Count a connection no longer. Does nothing if it is not counted."""
        key = self._connections.pop(connection, "")
        if key:
            of_address = self._by_address[key]
            del of_address[connection]
            if not of_address:
                del self._by_address[key]

    def _drop(self, connection: Droppable, limit: str) -> None:
        self.remove(connection)
        connection.drop_half_open(limit)
