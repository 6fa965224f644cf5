"""The Redis engine's revocation store.

Redis has two keys: a hash of all revocations that have not expired, and a stream of the latest ones, in which
a node finds those that it does not know yet. A message under a pub/sub name says that there are new ones. It
has no content, so a forged one makes nodes read the stream, and nothing else.

    add -> script revoke -> Redis -> message, or POLL_SECONDS -> every node reads the stream

Each new connection may lead to a Redis that has lost data, and an evicting Redis removes whole keys. So on a
new connection, and when the hash is gone, the node reads it, and adds those of its own revocations that are
missing.

The mutable state is the last entry read from the stream, the connection on which the hash was last read, and
when the node looks for it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import time
from typing import NoReturn

import msgspec
import structlog

from tocsin_server.core.revocations import Revocation, Revocations
from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.interfaces import Commands, PubSub
from tocsin_server.engine.redis.keys import Keys
from tocsin_server.engine.revocations import RevocationHandler
from tocsin_server.errors import EngineError

POLL_SECONDS = 2.0
"""The longest time after which a node reads the stream, so that it misses no revocation for longer."""

CHECK_SECONDS = 10.0
"""How often a node looks whether the hash is still there."""

READ_PAUSE_SECONDS = 0.05
"""The shortest time between two reads, however many messages come."""

STREAM_LENGTH = 10_000
"""How many revocations the stream keeps. A node that has missed more reads the hash again."""

_PAGE = 1000
_FIRST_ENTRY = b"0-0"

log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Revocation).decode


class RedisRevocationStore:
    """Implements RevocationStore for any number of nodes."""

    def __init__(
        self, keys: Keys, commands: Commands, pubsub: PubSub, unix_clock: Callable[[], float] = time
    ) -> None:
        self._keys = keys
        self._commands = commands
        self._pubsub = pubsub
        self._unix_clock = unix_clock
        self._handler: RevocationHandler | None = None
        self._announced = asyncio.Event()
        self._last_entry = _FIRST_ENTRY
        self._connection_count = 0
        self._check_at = 0.0

    async def start(self, handler: RevocationHandler) -> None:
        """Hand over every kept revocation. Raises EngineError if Redis cannot be reached."""
        self._handler = handler
        await self._pubsub.subscribe(self._keys.revocation_announcements, self._on_announcement)
        await self._read_all(handler)

    def stop(self) -> None:
        """Release the handler. Idempotent."""
        self._handler = None

    async def add(self, revocation: Revocation) -> None:
        """Keep a revocation, as RevocationStore describes."""
        if self._handler is None:
            raise EngineError("the engine is not running")
        await self._store(revocation)
        if self._handler is not None:
            self._handler.on_revocations([revocation])

    async def run(self) -> NoReturn:
        """Hand over the revocations of other nodes until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._announced.wait()
            self._announced.clear()
            handler = self._handler
            if handler is not None:
                with suppress(EngineError):  # reported by the lease; the next read finds all
                    if await self._must_reread():
                        await self._read_all(handler)
                    else:
                        await self._read_new(handler)
            await asyncio.sleep(READ_PAUSE_SECONDS)

    async def _must_reread(self) -> bool:
        if self._connection_count != self._commands.connection_count:
            return True
        now = asyncio.get_running_loop().time()
        if now < self._check_at:
            return False
        self._check_at = now + CHECK_SECONDS
        return not await self._commands.execute("HLEN", self._keys.revocations)

    def _on_announcement(self, _message: bytes) -> None:
        self._announced.set()

    async def _store(self, revocation: Revocation) -> None:
        await self._commands.run_script(
            scripts.REVOKE,
            [self._keys.revocations, self._keys.latest_revocations],
            _encode(revocation),
            repr(revocation.expire_at),
            self._commands.publish_command,
            self._keys.revocation_announcements,
            STREAM_LENGTH,
        )

    async def _read_new(self, handler: RevocationHandler) -> None:
        """Hand over what follows the last entry that was read from the stream.

        If the stream no longer has that entry, entries after it may be gone too.
        """
        key = self._keys.latest_revocations
        while True:
            since = self._last_entry
            entries = await self._commands.execute("XRANGE", key, since, "+", "COUNT", _PAGE + 1)
            is_complete = len(entries) <= _PAGE
            if since == _FIRST_ENTRY:
                is_continued = is_complete
            else:
                is_continued = bool(entries) and entries.pop(0)[0] == since
            if not is_continued:
                await self._read_all(handler)
                return
            if entries:
                self._last_entry = entries[-1][0]
                handler.on_revocations(_decoded(fields[1] for _, fields in entries))
            if is_complete:
                return

    async def _read_all(self, handler: RevocationHandler) -> None:
        """Hand over all that Redis keeps, and add what it has lost."""
        count = self._commands.connection_count
        newest = await self._commands.execute(
            "XREVRANGE", self._keys.latest_revocations, "+", "-", "COUNT", 1
        )
        self._last_entry = newest[0][0] if newest else _FIRST_ENTRY
        fields = await self._commands.execute("HKEYS", self._keys.revocations)
        now, stored = self._unix_clock(), Revocations()
        for start in range(0, len(fields), _PAGE):
            kept = _decoded(field for field in fields[start : start + _PAGE] if field.startswith(b"{"))
            handler.on_revocations(kept)
            for revocation in kept:
                stored.add(revocation, now)
            await asyncio.sleep(0)
        for revocation in handler.known_revocations:
            if stored.add(revocation, now):
                await self._store(revocation)
        self._connection_count = count


def _decoded(texts: Iterable[bytes]) -> list[Revocation]:
    found: list[Revocation] = []
    for text in texts:
        try:
            found.append(_decode(text))
        except msgspec.DecodeError:
            log.warning("malformed_revocation_ignored")
    return found
