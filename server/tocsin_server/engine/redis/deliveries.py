"""The Redis engine's delivery store.

For each subscriber Redis has a stream of dead letters and a hash of failing deliveries. This module has no
state.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import structlog

from tocsin_server.core.delivery import FailingDelivery
from tocsin_server.engine.deliveries import DeadLetter, DeadLetterLimits, StoredDeadLetter
from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.interfaces import Commands
from tocsin_server.engine.redis.keys import Keys

FAILING_TTL_MS = 30 * 86_400_000
"""How long the failing deliveries of a subscriber are kept after the last change: longer than events."""

_ID = re.compile(r"\d{1,20}-\d{1,20}")

log = structlog.get_logger()
_encode = msgspec.json.Encoder().encode
_decode_letter = msgspec.json.Decoder(DeadLetter).decode
_decode_failing = msgspec.json.Decoder(FailingDelivery).decode


class RedisDeliveryStore:
    """Implements DeliveryStore for any number of nodes."""

    def __init__(self, keys: Keys, commands: Commands) -> None:
        self._keys = keys
        self._commands = commands

    async def add_dead_letters(
        self, subscriber: str, letters: Sequence[DeadLetter], limits: DeadLetterLimits
    ) -> int:
        """Keep dead letters, as DeliveryStore describes."""
        ttl_ms = max(1, round(limits.ttl * 1000))
        key = self._keys.dead_letters(subscriber)
        dropped: int = await self._commands.run_script(
            scripts.DEAD_LETTERS_ADD, [key], limits.number, ttl_ms, *map(_encode, letters)
        )
        return dropped

    async def read_dead_letters(
        self, subscriber: str, limit: int, after: str = ""
    ) -> Sequence[StoredDeadLetter]:
        """Return dead letters, oldest first."""
        first = f"({_checked(after)}" if after else "-"
        key = self._keys.dead_letters(subscriber)
        entries = await self._commands.execute("XRANGE", key, first, "+", "COUNT", limit)
        return [letter for entry in entries if (letter := _stored(entry))]

    async def remove_dead_letters(self, subscriber: str, ids: Sequence[str]) -> int:
        """Remove dead letters."""
        if not ids:
            return 0
        key = self._keys.dead_letters(subscriber)
        removed: int = await self._commands.execute("XDEL", key, *map(_checked, ids))
        return removed

    async def count_dead_letters(self, subscriber: str) -> int:
        """Count the dead letters of a subscriber."""
        count: int = await self._commands.execute("XLEN", self._keys.dead_letters(subscriber))
        return count

    async def set_failing(self, subscriber: str, part: int, failing: FailingDelivery | None) -> None:
        """Keep what is known of a failing delivery, or forget it."""
        key = self._keys.failing_deliveries(subscriber)
        if failing is None:
            await self._commands.execute("HDEL", key, part)
            return
        written = self._commands.execute("HSET", key, part, _encode(failing))
        expiring = self._commands.execute("PEXPIRE", key, FAILING_TTL_MS)
        await written
        await expiring

    async def failing(self, subscriber: str) -> Mapping[int, FailingDelivery]:
        """Return the failing deliveries of a subscriber."""
        flat = await self._commands.execute("HGETALL", self._keys.failing_deliveries(subscriber))
        found = {}
        for part, text in zip(flat[::2], flat[1::2], strict=True):
            try:
                found[int(part)] = _decode_failing(text)
            except ValueError:
                log.warning("malformed_delivery_ignored")
        return found


def _checked(letter_id: str) -> str:
    if not _ID.fullmatch(letter_id):
        raise ValueError(f"{letter_id[:40]!r} is not the id of a dead letter")
    return letter_id


def _stored(entry: Any) -> StoredDeadLetter | None:
    letter_id, fields = entry
    try:
        return StoredDeadLetter(letter_id.decode(), _decode_letter(fields[1]))
    except ValueError:
        log.warning("malformed_delivery_ignored")
        return None
