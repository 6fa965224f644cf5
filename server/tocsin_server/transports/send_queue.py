"""The bytes queued for one client, bounded, where a transport's `send` has to be awaited by one writer.

Where the server has the extension BODY_WRITER, bytes are queued only while its own buffer is full.

`put` never waits; its caller checks `is_overfull` afterwards. The mutable state is all in `SendQueue`;
only its methods change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from tocsin_server.node.connection import BEHIND_BYTES, CAUGHT_UP_BYTES

SEND_BYTES = 65_536
"""About how much one `send` is given: what an ASGI server buffers before it makes `send` wait."""

BODY_WRITER = "tocsin.body_writer"
"""The ASGI extension by which a server writes a chunk of a body at once, if its buffer has room."""

FLUSH_SECONDS = 5.0
"""How long the queued bytes may take to be sent once their connection is closed (as protocol §8)."""


def _ignore() -> None:
    """Replace a callback that is not needed."""


class BodyWriter(Protocol):
    """What the extension BODY_WRITER is: it writes an `http_chunk`, unless it is paused."""

    is_paused: bool
    write: Callable[[bytes], object]


def http_chunk(body: bytes) -> bytes:
    """A part of a body as a chunk of HTTP/1.1 (RFC 9112 §7.1). It must not be empty."""
    return b"%x\r\n%b\r\n" % (len(body), body)


class SendQueue:
    """Chunks of bytes for one client. Its writer iterates it, once.

    Each iteration gives what is queued, joined by `separator`. With None, chunks may be divided, and a piece
    has at most SEND_BYTES. Iteration ends after `end`, once nothing is queued. Bytes count as queued until
    the next iteration asks for more: until then they are still being sent.

    `on_behind` is called when more than BEHIND_BYTES are queued although the writer is sending, and
    `on_caught_up` when few are left.
    """

    __slots__ = (
        "_body_writer",
        "_chunks",
        "_deadline",
        "_exempt_bytes",
        "_has_ended",
        "_is_idle",
        "_limit",
        "_on_behind",
        "_on_caught_up",
        "_queued_bytes",
        "_sends",
        "_sends_at_ping",
        "_separator",
        "_timeout",
        "_waiter",
        "is_behind",
        "sending_bytes",
        "taken_bytes",
    )

    def __init__(
        self,
        limit: int,
        separator: bytes | None = None,
        *,
        on_behind: Callable[[], None] = _ignore,
        on_caught_up: Callable[[], None] = _ignore,
    ) -> None:
        self._chunks: list[bytes | memoryview] = []
        self._on_behind = on_behind
        self._on_caught_up = on_caught_up
        self.is_behind = False
        """Whether `on_behind` was called, and not yet `on_caught_up`."""
        self.sending_bytes = 0
        """The size of the piece that the writer is sending."""
        self.taken_bytes = 0
        """The size of all pieces that were sent."""
        self._queued_bytes = 0
        self._exempt_bytes = 0
        self._limit = limit
        self._separator = separator
        self._sends = 0
        self._sends_at_ping = -1
        self._body_writer: BodyWriter | None = None
        self._has_ended = False
        self._is_idle = False  # while the writer waits, with nothing queued
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
        if self._is_idle and self._body_writer is not None and self.write_now(http_chunk(chunk)):
            return
        exempt = exempt or (not self._exempt_bytes and len(chunk) > self._limit // 2)
        if not self._has_ended:
            self._chunks.append(chunk)
            self._queued_bytes += len(chunk)
            self._exempt_bytes += len(chunk) if exempt else 0
            if self.sending_bytes or self._waiter is None:  # the writer is sending, or has not begun
                self._note_behind()
            else:
                self._wake_writer()

    def write_now(self, chunk: bytes) -> bool:
        """Write an `http_chunk` at once, if nothing is queued. False, and nothing is written, else.

        A large chunk is queued, so that it can be seen how much of it the client has taken.
        """
        writer = self._body_writer
        if not self._is_idle or writer is None or writer.is_paused or len(chunk) > SEND_BYTES:
            return False
        writer.write(chunk)
        return True

    def set_body_writer(self, writer: BodyWriter | None) -> None:
        """Write chunks with `writer` while nothing is queued.

        It spares the writer's turn of the event loop, which costs several times what the write does.
        """
        self._body_writer = writer

    def take_stall(self) -> bool:
        """Whether bytes are queued of which the writer has taken nothing since the last call."""
        has_stalled = self._queued_bytes > 0 and self._sends == self._sends_at_ping
        self._sends_at_ping = self._sends
        return has_stalled

    def end(self, within_seconds: float) -> None:
        """Accept no further chunks, and interrupt the writer if it needs longer for those that are queued."""
        self._has_ended = True
        self._is_idle = False
        self._deadline = asyncio.get_running_loop().time() + within_seconds
        if self._timeout is not None and not self._timeout.expired():  # else it is ending
            self._timeout.reschedule(self._deadline)
        self._wake_writer()

    def drop(self) -> None:
        """Discard what is queued."""
        self._chunks.clear()
        self._queued_bytes = self._exempt_bytes = 0
        self._note_caught_up()

    def drop_unbegun(self) -> None:
        """Discard what is queued, but for the rest of a chunk that was taken in part: messages stay whole."""
        rest = self._chunks[:1] if self._chunks and isinstance(self._chunks[0], memoryview) else []
        self.drop()
        self._chunks += rest
        self._queued_bytes = sum(map(len, rest))

    def detach(self) -> None:
        """Call nothing from now on: the connection is lost. Its owner and the queue refer to each other."""
        self._body_writer = None
        self._on_behind = self._on_caught_up = _ignore

    def _note_behind(self) -> None:
        if self._queued_bytes > BEHIND_BYTES and not self.is_behind:
            self.is_behind = True
            self._on_behind()

    def _note_caught_up(self) -> None:
        if self.is_behind and self._queued_bytes <= CAUGHT_UP_BYTES:
            self.is_behind = False
            self._on_caught_up()

    def _wake_writer(self) -> None:
        self._is_idle = False
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
                joined = self._take()
                self._note_behind()
                yield joined
                self._queued_bytes = max(0, self._queued_bytes - self.sending_bytes)
                self.taken_bytes += self.sending_bytes
                self.sending_bytes = 0
                self._note_caught_up()
            self._exempt_bytes = 0
            if self._has_ended:
                return
            self._waiter = asyncio.get_running_loop().create_future()
            self._is_idle = True
            await self._waiter

    def _take(self) -> bytes:
        self._sends += 1
        chunks, size = self._chunks, 0
        taken: list[bytes | memoryview] = []
        while len(taken) < len(chunks) and size < SEND_BYTES:
            taken.append(chunks[len(taken)])
            size += len(taken[-1])
        del chunks[: len(taken)]
        if size > SEND_BYTES and self._separator is None:
            last, excess = memoryview(taken.pop()), size - SEND_BYTES
            taken.append(last[:-excess])
            chunks.insert(0, last[-excess:])
            size = SEND_BYTES
        self.sending_bytes = size
        return (self._separator or b"").join(taken)
