"""The presence checker: finds presence entries that Redis has lost, so that they are written again."""

from __future__ import annotations

import time

import structlog

from tocsin_server.engine.redis.presence import RedisPresenceStore

CHANNELS_PER_CHECK = 100
"""How many channels one check reads. The lease starts at most one check for each renewal."""

SWEEP_SECONDS = 5.0
"""The shortest time in which all channels are checked once. With more channels, a sweep takes longer."""

log = structlog.get_logger()


class PresenceChecker:
    """Checks this node's presence entries, a few channels at a time.

    An evicting Redis removes whole keys, and so may an operator. The check looks for at most three entries of
    each channel, and writes nothing unless one is missing. So its cost does not grow with the clients.

    The mutable state is the channels that the current sweep has not checked yet, and when it began.
    """

    def __init__(self, presence: RedisPresenceStore) -> None:
        self._presence = presence
        self._unchecked: list[str] = []
        self._sweep_began_at = 0.0
        self.restored_channels = 0
        """How often a channel had lost entries of this node, which were then written again."""

    async def check(self) -> None:
        """Check the next channels. Raises EngineError.

        The lease must be alive, and no entries may move.
        """
        channels = self._next_channels()
        if channels and (lost := await self._presence.restore_lost(channels)):
            self.restored_channels += lost
            log.warning("lost_presence_restored", channels=lost)

    def _next_channels(self) -> list[str]:
        now = time.monotonic()
        if not self._unchecked and now - self._sweep_began_at >= SWEEP_SECONDS:
            self._sweep_began_at = now
            self._unchecked = self._presence.own_channels
        channels = self._unchecked[-CHANNELS_PER_CHECK:]
        del self._unchecked[-CHANNELS_PER_CHECK:]
        return channels
