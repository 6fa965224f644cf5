"""The presence of a node that stands alone."""

from __future__ import annotations

from collections.abc import Mapping

from tocsin_server.engine.presence import PresenceStats
from tocsin_server.protocol.messages import ClientInfo


class MemoryPresenceStore:
    """Entries by channel and client. All belong to this node, so they need no lease: they end with it."""

    def __init__(self) -> None:
        self._channels: dict[str, dict[str, ClientInfo]] = {}

    async def add(self, channel: str, info: ClientInfo, is_announced: bool = False) -> None:  # noqa: ARG002
        """A connection is in a channel; again replaces its info."""
        self._channels.setdefault(channel, {})[info.client] = info

    async def remove(self, channel: str, client: str) -> None:
        """A connection is no longer in a channel. Idempotent."""
        members = self._channels.get(channel)
        if members is None:
            return
        members.pop(client, None)
        if not members:
            del self._channels[channel]

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """Everybody in a channel, by client id, as of one moment."""
        return dict(self._channels.get(channel, {}))

    async def stats(self, channel: str) -> PresenceStats:
        """How many are in a channel."""
        members = self._channels.get(channel, {})
        return PresenceStats(len(members), len({info.user for info in members.values()}))
