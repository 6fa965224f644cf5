"""The memory engine's presence store."""

from __future__ import annotations

from collections.abc import Mapping

from tocsin_server.engine.presence import PresenceStats
from tocsin_server.errors import PresenceFull
from tocsin_server.protocol.messages import ClientInfo


class MemoryPresenceStore:
    """Implements PresenceStore. All entries belong to this node and end with it, so they need no lease."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, ClientInfo]] = {}

    async def add(
        self,
        channel: str,
        info: ClientInfo,
        is_announced: bool = False,  # noqa: ARG002 - no other node outlives this one
        limit: int = 0,
    ) -> None:
        """Add the presence entry of a client, or replace its info."""
        members = self._channels.get(channel, {})
        if limit and len(members) >= limit and info.client not in members:
            raise PresenceFull(limit)
        self._channels.setdefault(channel, {})[info.client] = info

    async def remove(self, channel: str, client: str) -> None:
        """Remove the presence entry of a client. Idempotent."""
        members = self._channels.get(channel)
        if members is None:
            return
        members.pop(client, None)
        if not members:
            del self._channels[channel]

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """Read all presence entries of a channel by client id. The result is a copy."""
        return dict(self._channels.get(channel, {}))

    async def stats(self, channel: str) -> PresenceStats:
        """Count the clients and users in a channel."""
        members = self._channels.get(channel, {})
        return PresenceStats(len(members), len({info.user for info in members.values()}))
