"""The presence of a node that shares a Redis: entries, each owned by the lease of the node that made it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from tocsin_server.engine.presence import PresenceStats
from tocsin_server.engine.redis import encoding, scripts
from tocsin_server.engine.redis.interfaces import Answer, Calls
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import ClientInfo, PresenceChange, Push

REGISTERED_TOGETHER = 200
"""Entries written in one go, so that publications find their turn between them."""


class Entry(NamedTuple):
    """What this node says of one of its connections."""

    info: ClientInfo
    is_announced: bool


class RedisPresenceStore:
    """Knows this node's own entries, since a new lease needs them all again.

    An entry whose writing or removal failed may lie in Redis nevertheless. `is_in_doubt` says so: a new
    lease, to which only the own entries move, ends the doubt.
    """

    def __init__(self, keys: Keys, calls: Calls) -> None:
        self._keys = keys
        self._calls = calls
        self._lease = ""
        self._own: dict[str, dict[str, Entry]] = {}
        self._listed: set[str] = set()  # channels that are on the list of the present lease
        self.is_in_doubt = False

    @property
    def is_empty(self) -> bool:
        """Whether this node has no entries, so that its lease owes nothing."""
        return not self._own and not self.is_in_doubt

    def move(self, lease: str) -> None:
        """Write entries under another lease from now on. Those there are must be registered."""
        self._lease = lease
        self._listed.clear()
        self.is_in_doubt = False

    async def register(self) -> None:
        """Write all of this node's entries once more.

        Somebody may have reaped them, and told that they left. Whose entry is missing has its joining
        announced.
        """
        try:
            await self._register()
        except (EngineError, asyncio.CancelledError):
            self.is_in_doubt = True
            raise

    async def _register(self) -> None:
        own = [(channel, entry) for channel, entries in self._own.items() for entry in entries.values()]
        for first in range(0, len(own), REGISTERED_TOGETHER):
            some = [
                (channel, entry)
                for channel, entry in own[first : first + REGISTERED_TOGETHER]
                if self._own.get(channel, {}).get(entry.info.client) is entry
            ]
            await asyncio.gather(
                *(call for channel, entry in some for call in self._write(channel, entry, is_again=True))
            )

    async def add(self, channel: str, info: ClientInfo, is_announced: bool = False) -> None:
        """A connection is in a channel, as Presence says."""
        entry = Entry(info, is_announced)
        self._own.setdefault(channel, {})[info.client] = entry
        try:
            await asyncio.gather(*self._write(channel, entry))
        except (EngineError, asyncio.CancelledError):
            self.is_in_doubt = True
            if self._own.get(channel, {}).get(info.client) is entry:
                self._drop(channel, info.client)
            raise

    async def remove(self, channel: str, client: str) -> None:
        """A connection is no longer in a channel. Idempotent."""
        self._drop(channel, client)
        calls = [self._calls.run_script(scripts.REMOVE, self._channel_keys(channel), client)]
        if channel not in self._own and channel in self._listed:
            self._listed.discard(channel)
            index = self._keys.lease_channels(self._lease)
            calls.append(self._calls.call("SREM", index, channel, after=calls[0]))
        try:
            await asyncio.gather(*calls)
        except (EngineError, asyncio.CancelledError):
            self.is_in_doubt = True
            raise

    async def members(self, channel: str) -> Mapping[str, ClientInfo]:
        """Everybody in a channel, by client id, as of one moment."""
        entries = await self._calls.call("HVALS", self._keys.presence(channel))
        infos = map(encoding.decode_entry, entries)
        return {info.client: info for info in infos}

    async def stats(self, channel: str) -> PresenceStats:
        """How many are in a channel."""
        return PresenceStats(*await self._calls.run_script(scripts.STATS, self._channel_keys(channel)))

    def _write(self, channel: str, entry: Entry, *, is_again: bool = False) -> list[Answer]:
        calls: list[Answer] = []
        listed: Answer | None = None
        if channel not in self._listed:  # first: an entry in a channel that is not listed would stay for ever
            self._listed.add(channel)
            listed = self._calls.call("SADD", self._keys.lease_channels(self._lease), channel)
            calls.append(listed)
        join = b""
        if is_again and entry.is_announced:
            join = encoding.encode_push(Push(channel, join=PresenceChange(entry.info)))
        calls.append(
            self._calls.run_script(
                scripts.ADD,
                self._channel_keys(channel),
                entry.info.client,
                encoding.encode_entry(self._lease, entry.is_announced, entry.info),
                self._calls.publish,
                self._keys.announcements(channel),
                join,
                after=listed,
            )
        )
        return calls

    def _drop(self, channel: str, client: str) -> None:
        entries = self._own.get(channel, {})
        entries.pop(client, None)
        if not entries:
            self._own.pop(channel, None)

    def _channel_keys(self, channel: str) -> list[str]:
        return [self._keys.presence(channel), self._keys.users(channel)]
