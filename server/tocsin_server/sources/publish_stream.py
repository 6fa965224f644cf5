"""The publish stream as a source: entries of a Redis stream that programs add with XADD."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

from tocsin_server.config.source_options import PublishStreamOptions
from tocsin_server.engine.publish_stream import PublishStream, StreamEntry
from tocsin_server.errors import EngineError
from tocsin_server.sources.entry import SourceEntry, too_large
from tocsin_server.sources.source import Failure, SourceError, Unpublished

WAIT_SECONDS = 1.0
"""How long one wait for further entries lasts, after which the claim is renewed."""

BATCH_BYTES = 4_194_304
"""How many bytes of entries are read at once. Beyond it, a batch has only the entry that exceeds it."""

PAGES = 20
"""How many pages with entries of held channels only are read at once."""

FIELDS = frozenset({"channel", "data", "binary_data", "tags", "options", "idempotency_key"})


class PublishStreamSource:
    """Implements Source. `limit_bytes` is the most that one entry may have."""

    name = "publish_stream"
    wait_seconds = WAIT_SECONDS

    def __init__(self, stream: PublishStream, options: PublishStreamOptions, limit_bytes: int) -> None:
        self.channels = options.channels
        self._stream = stream
        self._options = options
        self._limit_bytes = limit_bytes

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[OpenPublishStream]:
        """Use the engine's connections. The claim is released at the end of the context."""
        opened = OpenPublishStream(self._stream, self._options, self._limit_bytes)
        try:
            yield opened
        finally:
            await self._stream.close()


class OpenPublishStream:
    """Implements OpenSource.

    The mutable state is `_after`: up to which entry the stream was read while channels are held. Otherwise
    each read begins with the oldest entry.
    """

    def __init__(self, stream: PublishStream, options: PublishStreamOptions, limit_bytes: int) -> None:
        self._stream = stream
        self._options = options
        self._limit_bytes = limit_bytes
        self._after = ""

    async def claim(self) -> bool:
        """Take or renew the claim in Redis."""
        with _translating():
            return await self._stream.claim()

    async def release(self) -> None:
        """Release the claim in Redis. Idempotent."""
        with _translating():
            await self._stream.release()

    async def read(self, held: Collection[str]) -> Sequence[SourceEntry]:
        """Read the oldest entries, as OpenSource describes."""
        if not held:
            self._after = ""
        for _ in range(PAGES):
            with _translating():
                page = await self._stream.read(
                    self._after, self._options.batch_size, BATCH_BYTES, self._limit_bytes
                )
            if not page:
                return ()
            self._after = page[-1].id
            entries = [_entry(one, self._limit_bytes) for one in page]
            if not_held := [entry for entry in entries if entry.channel not in held]:
                return not_held
        return ()

    async def remove(self, published: Sequence[SourceEntry]) -> Sequence[SourceEntry]:
        """Delete entries that were published."""
        with _translating():
            await self._stream.remove([entry.id for entry in published])
        return published

    async def fail(self, failures: Sequence[Failure]) -> int:
        """Move entries to the stream of failures."""
        with _translating():
            for entry, reason in failures:
                await self._stream.fail(entry.id, reason, self._options.failure_limit, self._limit_bytes)
        return len(failures)

    async def wait(self, seconds: float) -> None:
        """Wait for entries after those that were read last."""
        with _translating():
            await self._stream.wait(self._after, seconds)

    async def unpublished(self) -> Unpublished:
        """Count the entries."""
        with _translating():
            waiting, lag_seconds = await self._stream.unpublished()
        return Unpublished(waiting, lag_seconds)


def _entry(read: StreamEntry, limit_bytes: int) -> SourceEntry:
    fields = read.fields
    problem = ""
    if fields is None:
        problem = too_large(read.size, limit_bytes)
    elif unknown := sorted(fields.keys() - FIELDS):
        problem = f"it has the unknown field {unknown[0][:50]!r}"
    elif read.has_repeated_field:
        problem = "it has a field twice"
    fields = fields or {}
    try:
        channel = fields.get("channel", b"").decode()
        key = fields.get("idempotency_key", b"").decode()
    except UnicodeDecodeError:
        channel, key, problem = "", "", "channel or idempotency_key is not UTF-8"
    return SourceEntry(
        read.id,
        channel,
        key or f"publish_stream:{read.id}",
        fields.get("data"),
        fields.get("binary_data"),
        fields.get("tags"),
        fields.get("options"),
        problem,
    )


@contextmanager
def _translating() -> Iterator[None]:
    """Raise SourceError in place of EngineError."""
    try:
        yield
    except EngineError as error:
        raise SourceError(str(error)) from None
