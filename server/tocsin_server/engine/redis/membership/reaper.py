"""The reaper: takes the presence of a dead lease away, and tells that its users left."""

from __future__ import annotations

import asyncio

import structlog

from tocsin_server.engine.redis import encoding, scripts
from tocsin_server.engine.redis.interfaces import Calls
from tocsin_server.engine.redis.keys import Keys

REAPED_TOGETHER = 50
"""Channels in one go, so that publications find their turn between them."""

CLAIM_MS = 5000
"""How long one node reaps alone. If it dies over it, another goes on."""

log = structlog.get_logger()


class Reaper:
    """Removing an entry and announcing that its user left are one step, so each leave is announced once.

    That holds whoever reaps and however often; the claim only spares work.
    """

    def __init__(self, uid: str, keys: Keys, calls: Calls) -> None:
        self._uid = uid
        self._keys = keys
        self._calls = calls

    async def reap(self, lease: str) -> bool:
        """Reap a lease that is dead, unless another node is doing so: then the answer is no."""
        claim = self._keys.lease_reaper(lease)
        if not await self._calls.call("SET", claim, self._uid, "NX", "PX", CLAIM_MS):
            return False
        index = self._keys.lease_channels(lease)
        channels = [name.decode() for name in await self._calls.call("SMEMBERS", index)]
        entries = 0
        for first in range(0, len(channels), REAPED_TOGETHER):
            some = channels[first : first + REAPED_TOGETHER]
            entries += sum(await asyncio.gather(*(self._reap_channel(lease, channel) for channel in some)))
        await asyncio.gather(
            self._calls.call("DEL", index),
            self._calls.call("HDEL", self._keys.nodes, lease),
            self._calls.call("DEL", claim),
        )
        if channels:
            log.info("reaped a lease", lease=lease, channels=len(channels), entries=entries)
        return True

    async def _reap_channel(self, lease: str, channel: str) -> int:
        entries: int = await self._calls.run_script(
            scripts.REAP,
            [self._keys.presence(channel), self._keys.users(channel)],
            lease,
            self._calls.publish,
            self._keys.announcements(channel),
            encoding.LEAVE,
        )
        return entries
