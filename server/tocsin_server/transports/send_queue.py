"""The bytes queued for one client, bounded, where a transport's `send` has to be awaited by one writer.

`put` never waits; its caller checks `is_overfull` afterwards. The mutable state is all in `SendQueue`;
only its methods change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable

SEND_BYTES = 65_536
"""About how much one `send` is given: what an ASGI server buffers before it makes `send` wait."""

FLUSH_SECONDS = 5.0
"""How long the queued bytes may take to be sent once their connection is closed (as protocol §8)."""


class SendQueue:
    """Chunks of bytes for one client. Its writer iterates it, once.

    Each iteration gives what is queued, joined by `separator`. Iteration ends after `end`, once nothing is
    queued. Bytes count as queued until the next iteration asks for more: until then they are still being
    sent.
    """

    __slots__ = (
        "_chunks",
        "_deadline",
        "_exempt_bytes",
        "_has_ended",
        "_limit",
        "_queued_bytes",
        "_sends",
        "_separator",
        "_timeout",
        "_waiter",
    )

    def __init__(self, limit: int, separator: bytes = b"") -> None:
        self._chunks: list[bytes] = []
        self._queued_bytes = 0
        self._exempt_bytes = 0
        self._limit = limit
        self._separator = separator
        self._sends = 0
        self._has_ended = False
        self._deadline: float | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timeout: asyncio.Timeout | None = None

    # --------------------------------------------------------------------------------------------- the sender

    @property
    def is_overfull(self) -> bool:
        """Whether more is queued than the limit allows."""
        return self._queued_bytes > self._limit + self._exempt_bytes and not self._has_ended

    @property
    def queued_bytes(self) -> int:
        """How many bytes are queued."""
        return self._queued_bytes

    @property
    def sends(self) -> int:
        """How many pieces the writer has taken."""
        return self._sends

    def put(self, chunk: bytes, *, exempt: bool = False) -> None:
        """Queue a chunk; after `end` it is dropped.

        An exempt chunk does not count towards the limit; the caller bounds its size. One chunk of more than
        half the limit is exempt too: it would make every client slow, and those would only recover it again.
        """
        exempt = exempt or (not self._exempt_bytes and len(chunk) > self._limit // 2)
        if not self._has_ended:
            self._chunks.append(chunk)
            self._queued_bytes += len(chunk)
            self._exempt_bytes += len(chunk) if exempt else 0
            self._wake_writer()

    def end(self, within_seconds: float) -> None:
        """Accept no further chunks, and interrupt the writer if it needs longer for those that are queued."""
        self._has_ended = True
        self._deadline = asyncio.get_running_loop().time() + within_seconds
        if self._timeout is not None and not self._timeout.expired():  # else it is ending
            self._timeout.reschedule(self._deadline)
        self._wake_writer()

    def drop(self) -> None:
        """Discard what is queued."""
        self._chunks.clear()
        self._queued_bytes = self._exempt_bytes = 0

    def _wake_writer(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --------------------------------------------------------------------------------------------- the writer

    async def run_writer(self, writing: Awaitable[None]) -> None:
        """Await the writer, which iterates this send_queue, up to the deadline that `end` sets.

        A writer that finds the connection lost ends too: servers raise OSError from `send`, or ignore it
        (ASGI 2.4).
        """
        try:
            async with asyncio.timeout_at(self._deadline) as self._timeout:
                await writing
        except OSError:  # TimeoutError is one
            pass
        finally:
            self._timeout = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                joined, size = self._take()
                yield joined
                self._queued_bytes = max(0, self._queued_bytes - size)
            self._exempt_bytes = 0
            if self._has_ended:
                return
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _take(self) -> tuple[bytes, int]:
        self._sends += 1
        size = count = 0
        while count < len(self._chunks) and size < SEND_BYTES:
            size += len(self._chunks[count])
            count += 1
        joined = self._separator.join(self._chunks[:count])
        del self._chunks[:count]
        return joined, size
