"""What waits for one peer: bounded in bytes, taken by one writer.

For transports whose `send` has to be awaited. Whoever puts never waits, and looks at `is_overfull` then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

TAKE_BYTES = 65_536
"""About how much is handed over at once: what a server's transport buffers before it makes `send` wait."""


class Outbox:
    """Chunks on their way to one peer, iterated once, by its writer.

    The iterator gives what waits, joined by `separator`, and ends after `end` once nothing waits. What was
    given counts until the next is asked for, since until then it is still being sent.
    """

    __slots__ = (
        "_chunks",
        "_deadline",
        "_has_ended",
        "_limit",
        "_owed",
        "_patience",
        "_separator",
        "_size",
        "_waiter",
    )

    def __init__(self, limit: int, separator: bytes = b"") -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._owed = 0
        self._limit = limit
        self._separator = separator
        self._has_ended = False
        self._deadline: float | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._patience: asyncio.Timeout | None = None

    # ---------------------------------------------------------------------------------- whoever has something

    @property
    def is_overfull(self) -> bool:
        """Whether more waits than may."""
        return self._size > self._limit + self._owed and not self._has_ended

    @property
    def waiting_bytes(self) -> int:
        """How much waits."""
        return self._size

    @property
    def is_owing(self) -> bool:
        """Whether something that is owed still waits."""
        return self._owed > 0

    def put(self, chunk: bytes, *, is_owed: bool = False) -> None:
        """Let a chunk wait. What comes after the end is dropped.

        What is owed does not count towards the bound; whoever puts it bounds it.
        """
        if not self._has_ended:
            self._chunks.append(chunk)
            self._size += len(chunk)
            self._owed += len(chunk) if is_owed else 0
            self._wake()

    def end(self, within_seconds: float) -> None:
        """Nothing follows what waits, and the writer is interrupted if that takes longer to send."""
        self._has_ended = True
        self._deadline = asyncio.get_running_loop().time() + within_seconds
        if self._patience is not None:
            self._patience.reschedule(self._deadline)
        self._wake()

    def drop(self) -> None:
        """Send nothing of what waits."""
        self._chunks.clear()
        self._size = self._owed = 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --------------------------------------------------------------------------------------------- the writer

    async def keep_limit(self, writing: Awaitable[None]) -> None:
        """Await the writer, which iterates, for as long as it may take.

        It ends at once if it finds the peer gone: servers say so by an OSError, or not at all (ASGI 2.4).
        """
        try:
            async with asyncio.timeout_at(self._deadline) as self._patience:
                await writing
        except OSError:  # which TimeoutError is too
            pass
        finally:
            self._patience = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                taken, size = self._take()
                yield taken
                self._size = max(0, self._size - size)
            self._owed = 0
            if self._has_ended:
                return
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _take(self) -> tuple[bytes, int]:
        size = count = 0
        while count < len(self._chunks) and size < TAKE_BYTES:
            size += len(self._chunks[count])
            count += 1
        taken = self._separator.join(self._chunks[:count])
        del self._chunks[:count]
        return taken, size
