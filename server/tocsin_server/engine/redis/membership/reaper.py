"""The reaper: removes the presence entries of a dead lease, and publishes the leaves."""

from __future__ import annotations

import asyncio

import structlog

from tocsin_server.engine.redis import encoding, scripts
from tocsin_server.engine.redis.interfaces import Commands
from tocsin_server.engine.redis.keys import Keys

REAP_BATCH = 50
"""How many channels are reaped together, so that publications can be sent in between."""

CLAIM_MS = 5000
"""How long one node reaps alone. If it dies in the meantime, another node continues."""

log = structlog.get_logger()


class Reaper:
    """Reaps dead leases.

    Removing an entry and publishing its leave are one step, so each leave is published once.

    This holds even if several nodes reap the same lease. The claim only avoids duplicate work.
    """

    def __init__(self, uid: str, keys: Keys, commands: Commands) -> None:
        self._uid = uid
        self._keys = keys
        self._commands = commands

    async def reap(self, lease: str) -> bool:
        """Reap a dead lease. Returns False, and does nothing, if another node is reaping it."""
        claim = self._keys.lease_reaper(lease)
        if not await self._commands.execute("SET", claim, self._uid, "NX", "PX", CLAIM_MS):
            return False
        list_key = self._keys.lease_channels(lease)
        channels = [name.decode() for name in await self._commands.execute("SMEMBERS", list_key)]
        entries = 0
        for first in range(0, len(channels), REAP_BATCH):
            batch = channels[first : first + REAP_BATCH]
            entries += sum(await asyncio.gather(*(self._reap_channel(lease, channel) for channel in batch)))
        await asyncio.gather(
            self._commands.execute("DEL", list_key),
            self._commands.execute("HDEL", self._keys.nodes, lease),
            self._commands.execute("DEL", claim),
        )
        if channels:
            log.info("lease_reaped", lease=lease, channels=len(channels), entries=entries)
        return True

    async def _reap_channel(self, lease: str, channel: str) -> int:
        entries: int = await self._commands.run_script(
            scripts.REAP,
            [self._keys.presence(channel), self._keys.users(channel)],
            lease,
            self._commands.publish_command,
            self._keys.pubsub_name(channel),
            encoding.LEAVE,
        )
        return entries
