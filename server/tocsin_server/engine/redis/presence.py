"""The Redis engine's presence store: each entry belongs to a lease of the node that made it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

from tocsin_server.engine.presence import PresenceStats
from tocsin_server.engine.redis import encoding, scripts
from tocsin_server.engine.redis.interfaces import Commands, PendingReply
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.errors import EngineError, EngineFull, EngineLimit, PresenceFull
from tocsin_server.loop_turns import LoopTurns
from tocsin_server.protocol.messages import ClientInfo, PresenceChange, Push

REGISTER_BATCH = 200
"""How many entries are written together, so that publications can be sent in between."""


MAX_CHECK_SECONDS = 1.0
"""In a longer check, the node's lease may have expired. Its result is not used."""


class PresenceEntry(NamedTuple):
    """The entry of one of this node's clients."""

    info: ClientInfo
    is_announced: bool
    """Whether the client's join was published."""


class RedisPresenceStore:
    """Implements PresenceStore.

    It keeps this node's own entries, because a new lease needs all of them again.

    If writing or removing an entry failed, the entry may still be in Redis. `is_uncertain` is then true. A
    new lease resolves it: only the node's own entries move to it, and the old lease is reaped.

    The mutable state is the own entries, the channels on the current lease's list, and `is_uncertain`. It
    changes synchronously, before the commands are awaited.
    """

    def __init__(
        self,
        keys: Keys,
        commands: Commands,
        random: Random,
        may_grow: Callable[[], bool] = lambda: True,
    ) -> None:
        self._keys = keys
        self._may_grow = may_grow
        self._random = random
        self._commands = commands
        self._lease = ""
        self._own: dict[str, dict[str, PresenceEntry]] = {}
        self._listed: set[str] = set()  # channels on the current lease's list
        self.is_uncertain = False
        self._other_versions = encoding.OtherVersions()
        self._decoding_turns = LoopTurns()

    @property
    def is_empty(self) -> bool:
        """Whether this node certainly has no entries, so that its lease can be removed without reaping."""
        return not self._own and not self.is_uncertain

    def use_lease(self, lease: str) -> None:
        """Write entries under another lease from now on. The caller must then call `register`."""
        self._lease = lease
        self._listed.clear()
        self.is_uncertain = False

    async def register(self) -> None:
        """Write all of this node's entries under the current lease.

        Another node may have reaped them and published their leaves. So for each missing entry whose join was
        published, the join is published again.
        """
        try:
            await self._register()
        except (EngineError, asyncio.CancelledError):
            self.is_uncertain = True
            raise

    async def _register(self) -> None:
        await self._write_again(list(self._own), publishes_joins=True)

    @property
    def own_channels(self) -> list[str]:
        """The channels in which this node has entries."""
        return list(self._own)

    async def restore_lost(self, channels: Sequence[str]) -> int:
        """Write this node's entries again in those of some channels where Redis has lost entries.

        Returns the number of these channels. Raises EngineError. No joins are published, because no leaves
        were. So the caller must ensure that the lease is alive and no entries move.
        """
        lease, began_at = self._lease, time.monotonic()
        found = await asyncio.gather(*map(self._check, channels))
        is_late = time.monotonic() - began_at > MAX_CHECK_SECONDS
        if is_late or self._lease != lease:
            return 0  # the entries may have been reaped in the meantime
        lost = [channel for channel, is_complete in zip(channels, found, strict=True) if not is_complete]
        await self._write_again(lost, publishes_joins=False)
        await asyncio.gather(
            *(
                self._commands.run_script(scripts.PRESENCE_RECOUNT, self._channel_keys(channel))
                for channel in lost
            )
        )
        if listed := [channel for channel in channels if channel in self._listed]:
            # The list of channels may be lost as well. Adding what is on it changes nothing.
            await self._commands.execute("SADD", self._keys.lease_channels(self._lease), *listed)
        return len(lost)

    def _check(self, channel: str) -> PendingReply:
        """Whether the oldest, the newest and another own entry of a channel are in Redis.

        Redis loses whole hashes. So the entries that were written before a loss are missing together.
        """
        own = self._own.get(channel, {})
        samples = {0, len(own) - 1, self._random.randrange(len(own))} if own else set()
        entries = [entry for index, entry in enumerate(own.values()) if index in samples]
        arguments = [word for entry in entries for word in (entry.info.client, entry.info.user)]
        return self._commands.run_script(scripts.PRESENCE_CHECK, self._channel_keys(channel), *arguments)

    async def _write_again(self, channels: Sequence[str], *, publishes_joins: bool) -> None:
        own = [(channel, entry) for channel in channels for entry in self._own.get(channel, {}).values()]
        for first in range(0, len(own), REGISTER_BATCH):
            batch = [
                (channel, entry)
                for channel, entry in own[first : first + REGISTER_BATCH]
                if self._own.get(channel, {}).get(entry.info.client) is entry
            ]
            await asyncio.gather(
                *(
                    reply
                    for channel, entry in batch
                    for reply in self._write(channel, entry, publishes_join=publishes_joins)
                )
            )

    async def add(self, channel: str, info: ClientInfo, is_announced: bool = False, limit: int = 0) -> None:
        """Add the presence entry of a client, as PresenceStore describes."""
        if not self._may_grow():
            raise EngineFull
        entry = PresenceEntry(info, is_announced)
        self._own.setdefault(channel, {})[info.client] = entry
        try:
            *_, is_added = await asyncio.gather(*self._write(channel, entry, limit=limit))
        except EngineFull:
            is_added = False
            refusal: EngineLimit = EngineFull()
        except (EngineError, asyncio.CancelledError):
            self.is_uncertain = True
            if self._own.get(channel, {}).get(info.client) is entry:
                self._discard(channel, info.client)
            raise
        else:
            refusal = PresenceFull(limit)
        if not is_added:
            if self._own.get(channel, {}).get(info.client) is entry:
                await self.remove(channel, info.client)
            raise refusal

    async def remove(self, channel: str, client: str) -> None:
        """Remove the presence entry of a client. Idempotent."""
        self._discard(channel, client)
        replies = [self._commands.run_script(scripts.PRESENCE_REMOVE, self._channel_keys(channel), client)]
        if channel not in self._own and channel in self._listed:
            self._listed.discard(channel)
            channels = self._keys.lease_channels(self._lease)
            replies.append(self._commands.execute("SREM", channels, channel, after=replies[0]))
        try:
            await asyncio.gather(*replies)
        except (EngineError, asyncio.CancelledError):
            self.is_uncertain = True
            raise

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """Read all presence entries of a channel by client id, in one atomic step."""
        entries = await self._commands.execute("HVALS", self._keys.presence(channel))
        decoded = await self._decoding_turns.map(_decode, entries)
        infos = {info.client: info for info in decoded if info is not None}
        if len(infos) < len(entries):
            self._other_versions.ignore("presence entries", channel=channel)
        return infos

    async def stats(self, channel: str) -> PresenceStats:
        """Count the clients and users in a channel."""
        reply = await self._commands.run_script(scripts.PRESENCE_STATS, self._channel_keys(channel))
        return PresenceStats(*reply)

    def _write(
        self, channel: str, entry: PresenceEntry, *, publishes_join: bool | None = None, limit: int = 0
    ) -> list[PendingReply]:
        """Write an entry: again if `publishes_join` is given, even if Redis is full; else as a new one."""
        is_again = publishes_join is not None
        replies: list[PendingReply] = []
        listed: PendingReply | None = None
        if channel not in self._listed:
            # First, because an entry in a channel that is not listed would never be reaped.
            self._listed.add(channel)
            listed = self._commands.run_script(
                scripts.LEASE_LIST, [self._keys.lease_channels(self._lease)], channel, int(is_again)
            )
            replies.append(listed)
        join = b""
        if publishes_join and entry.is_announced:
            join = encoding.encode_push(Push(channel, join=PresenceChange(entry.info)))
        replies.append(
            self._commands.run_script(
                scripts.PRESENCE_ADD,
                self._channel_keys(channel),
                entry.info.client,
                encoding.encode_presence_entry(self._lease, entry.is_announced, entry.info),
                self._commands.publish_command,
                self._keys.pubsub_name(channel),
                join,
                limit,
                int(is_again),
                after=listed,
            )
        )
        return replies

    def _discard(self, channel: str, client: str) -> None:
        entries = self._own.get(channel, {})
        entries.pop(client, None)
        if not entries:
            self._own.pop(channel, None)

    def _channel_keys(self, channel: str) -> list[str]:
        return [self._keys.presence(channel), self._keys.users(channel)]


def _decode(entry: bytes) -> ClientInfo | None:
    """Return None for an entry of another version."""
    try:
        return encoding.decode_presence_entry(entry)
    except ValueError:
        return None
