"""The memory engine's connections of users."""

from __future__ import annotations

from tocsin_server.errors import TooManyConnections


class MemoryUserConnections:
    """Implements UserConnections. There is no other node."""

    def __init__(self) -> None:
        self._clients: dict[str, set[str]] = {}

    async def add(self, user: str, client: str, limit: int) -> None:
        """Add a connection of a user, as UserConnections describes."""
        clients = self._clients.get(user, set())
        if client not in clients and len(clients) >= limit:
            raise TooManyConnections(limit)
        self._clients.setdefault(user, set()).add(client)

    async def remove(self, user: str, client: str) -> None:
        """Remove a connection of a user. Idempotent."""
        clients = self._clients.get(user, set())
        clients.discard(client)
        if not clients:
            self._clients.pop(user, None)
