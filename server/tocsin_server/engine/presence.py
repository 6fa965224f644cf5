"""The presence store interface: which clients are in a channel.

Each entry belongs to the node that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from tocsin_server.protocol.messages import ClientInfo


class PresenceStats(NamedTuple):
    """How many clients and how many distinct users are in a channel. Anonymous clients are one user."""

    clients: int
    users: int


class PresenceStore(Protocol):
    """The presence store of one node.

    Every method raises EngineError if the engine cannot do its work. Calls take effect in the order in which
    they are made.
    """

    async def add(self, channel: str, info: ClientInfo, is_announced: bool = False, limit: int = 0) -> None:
        """Add the presence entry of a client of this node, or replace its info.

        `is_announced` says that a join is published for this client. If this node dies, another node then
        publishes the leave. Raises PresenceFull if the channel has `limit` entries, and this one is new; 0 is
        no limit. Raises EngineFull if the store is nearly full.
        """

    async def remove(self, channel: str, client: str) -> None:
        """Remove the presence entry of a client of this node. Idempotent."""

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """Read all presence entries of a channel by client id, in one atomic step."""

    async def stats(self, channel: str) -> PresenceStats:
        """Count the clients and users in a channel."""
