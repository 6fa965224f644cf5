"""The interface that counts the connections of each user on all nodes, for `client.user_connection_limit`.

A node calls it only if the limit is set: once for a connect, and once when the connection ends.
"""

from __future__ import annotations

from typing import Protocol


class UserConnections(Protocol):
    """The connections of users. Each belongs to the node that added it, and ends with that node."""

    async def add(self, user: str, client: str, limit: int) -> None:
        """Add a connection of a user. Idempotent.

        Raises TooManyConnections if the user has `limit` others, and EngineError if the engine cannot tell.
        """

    async def remove(self, user: str, client: str) -> None:
        """Remove a connection of a user. Idempotent. If it fails, the engine tries again later."""
