"""Presence: who is in a channel, on whichever node. Each entry belongs to the node that made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from tocsin_server.protocol.messages import ClientInfo


class PresenceStats(NamedTuple):
    """How many connections and how many different users are in a channel; anonymous ones are one user."""

    clients: int
    users: int


class PresenceStore(Protocol):
    """One per node.

    Every method raises EngineError if the engine cannot do it. Calls take effect in the order in which they
    were made.
    """

    async def add(self, channel: str, info: ClientInfo, is_announced: bool = False) -> None:
        """A connection of this node is in a channel; again replaces its info.

        `is_announced` says that its joining is, so that others announce its leaving if this node dies.
        """

    async def remove(self, channel: str, client: str) -> None:
        """A connection of this node is no longer in a channel. Idempotent."""

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """Everybody in a channel, by client id, as of one moment."""

    async def stats(self, channel: str) -> PresenceStats:
        """How many are in a channel."""
