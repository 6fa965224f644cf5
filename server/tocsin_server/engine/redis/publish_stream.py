"""The Redis engine's publish stream: the stream, its failures, and the claim to read, all in one slot.

One node reads at a time, so entries are published in their order. It deletes each entry once the publication
is stored, so the stream has what is not published yet, and the next reader begins with its oldest entry.
There is no consumer group, because nothing would be pending in it for longer than a batch takes.

    XADD -> stream -> claim, read -> publish -> XDEL, or stream_fail -> failures

The mutable state is the claim and the connection that waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from tocsin_server.engine.publish_stream import StreamEntry
from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.clock import SharedClock
from tocsin_server.engine.redis.connections.connection import (
    CONNECTION_ERRORS,
    REPLY_SECONDS,
    RedisConnection,
    describe,
    pack_command,
)
from tocsin_server.engine.redis.connections.connector import Connector
from tocsin_server.engine.redis.interfaces import Commands
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.errors import EngineError

CLAIM_MS = 3000
"""How long a claim lasts. The reader renews it before each batch, and while it waits about every second."""

ENTRIES_OF_A_REMOVAL = 500
"""How many entries one command deletes."""


class RedisPublishStream:
    """Implements PublishStream. `connector_for` returns how to connect to the server that has a key."""

    def __init__(
        self,
        keys: Keys,
        commands: Commands,
        clock: SharedClock,
        connector_for: Callable[[str], Connector | None],
    ) -> None:
        self._keys = keys
        self._commands = commands
        self._clock = clock
        self._connector_for = connector_for
        self._connection: RedisConnection | None = None
        self._may_have_claim = False
        self.uid = ""
        """The node's uid, which the claim holds. The owner sets it."""

    async def claim(self) -> bool:
        """Take or renew the claim, as PublishStream describes."""
        self._may_have_claim = True
        self._may_have_claim = bool(await self._set_claim(CLAIM_MS))
        return self._may_have_claim

    async def release(self) -> None:
        """Release the claim. Idempotent."""
        if self._may_have_claim:
            await self._set_claim(0)
            self._may_have_claim = False
        await self._disconnect()

    async def read(
        self, after: str, limit: int, limit_bytes: int, entry_limit_bytes: int
    ) -> Sequence[StreamEntry]:
        """Read entries, as PublishStream describes."""
        found = await self._commands.run_script(
            scripts.STREAM_READ, [self._keys.publish_stream], after, limit, limit_bytes, entry_limit_bytes
        )
        return [_entry(one) for one in found]

    async def remove(self, ids: Sequence[str]) -> None:
        """Delete entries."""
        for first in range(0, len(ids), ENTRIES_OF_A_REMOVAL):
            part = ids[first : first + ENTRIES_OF_A_REMOVAL]
            await self._commands.execute("XDEL", self._keys.publish_stream, *part)

    async def fail(self, entry_id: str, reason: str, limit: int, entry_limit_bytes: int) -> None:
        """Move an entry to the failures, as PublishStream describes."""
        keys = [self._keys.publish_stream, self._keys.publish_failures]
        await self._commands.run_script(scripts.STREAM_FAIL, keys, entry_id, reason, limit, entry_limit_bytes)

    async def wait(self, after: str, seconds: float) -> None:
        """Wait with XREAD on a connection of its own, because it would block every other command."""
        try:
            async with asyncio.timeout(seconds + REPLY_SECONDS):
                connection = self._connection or await self._connect()
                milliseconds = max(1, round(seconds * 1000))
                read = pack_command(
                    *("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", self._keys.publish_stream),
                    after or "0-0",
                )
                await connection.execute(read)
        except CONNECTION_ERRORS as error:
            await self._disconnect()
            raise EngineError(describe(error)) from None
        except asyncio.CancelledError:
            await self._disconnect()  # a reply is on its way
            raise

    async def unpublished(self) -> tuple[int, float]:
        """Return the number of entries and the age of the oldest, by the clock of Redis."""
        count, oldest = await asyncio.gather(
            self._commands.execute("XLEN", self._keys.publish_stream), self.read("", 1, 1, 0)
        )
        if not oldest:
            return 0, 0.0
        added_ms = int(oldest[0].id.partition("-")[0])
        return int(count), max(0.0, self._clock.stamp() / 1e6 - added_ms / 1e3)

    async def close(self) -> None:
        """Release the claim and the connection. Raises nothing. Idempotent."""
        with suppress(EngineError):
            await self.release()
        await self._disconnect()

    def _set_claim(self, ms: int) -> Any:
        return self._commands.run_script(scripts.STREAM_CLAIM, [self._keys.publish_claim], self.uid, ms)

    async def _connect(self) -> RedisConnection:
        connector = self._connector_for(self._keys.publish_stream)
        if connector is None:
            raise EngineError("no server of the Redis Cluster serves its slot")
        self._connection = await connector.connect()
        return self._connection

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


def _entry(found: Any) -> StreamEntry:
    entry_id, size, words = found
    if not words:
        return StreamEntry(entry_id.decode(), size, None)
    fields = {
        name.decode(errors="replace"): value for name, value in zip(words[::2], words[1::2], strict=True)
    }
    return StreamEntry(entry_id.decode(), size, fields, has_repeated_field=2 * len(fields) < len(words))
