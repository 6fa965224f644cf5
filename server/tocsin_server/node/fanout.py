"""Fan-out: delivers the queued messages of channels to all their subscribers, a slice at a time.

A message waits for the event loop's next turn, together with everything else that its channel receives
meanwhile. Messages that arrive while a batch is written leave together in the next one. So batches grow
by themselves under load, and cost an idle channel nothing. A slice ends after SLICE_WRITES writes, or after
SLICE_BYTES if the payload is large, so that ten thousand subscribers never delay a ping or a handshake.
Channels take turns.

The mutable state is the batches being written, the channels they belong to, and whether a turn is scheduled.
Only the methods of `FanOut` change it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic

from tocsin_server.core.channel import C, Channel, ChannelMessage, Framing, Subscriber, encodable
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.protocol.payloads import PayloadNotJson

SLICE_WRITES = 200
"""Writes per slice. A turn begins no further slice after this many: about a millisecond at 5 µs each."""

SLICE_BYTES = 2 * 1_048_576
"""Bytes that a slice writes at most, unless one payload alone is larger: a millisecond for large payloads."""

SMALL_BYTES = SLICE_BYTES // SLICE_WRITES
"""A payload up to this size is written SLICE_WRITES times in one slice, a larger one less often."""

SLICE_CLOSES = 10
"""Connections that a slice closes. Each unsubscribes from all its channels."""

QUEUED_BYTES = 4 * 1_048_576
"""Past this many queued bytes in one channel publishers wait: some ten thousand publications."""


BatchWriting = Generator[int, None, int]
"""Writes a batch. Yields after each slice but the last, and returns after that one, what it counts for."""


class FanOut(Generic[C]):
    """Delivers batches of channels in turn. Owns no task: each turn is a callback of the running loop.

    `on_failed(connection)` is called where a transport raised. That connection must be closed, so that its
    client recovers what was not written. `on_unreadable(connection)` is called where its codec cannot encode
    a message, once everything before that is written. Metrics are counted once per batch, not per subscriber.
    """

    def __init__(
        self, metrics: Metrics, on_failed: Callable[[C], None], on_unreadable: Callable[[C], None]
    ) -> None:
        self._deliveries, self._sent_bytes = metrics.deliveries, metrics.sent_bytes
        self._fanout_seconds = metrics.fanout_seconds
        self._publish_to_socket_seconds = metrics.publish_to_socket_seconds
        self._log = SampledLog()
        self._on_failed = on_failed
        self._on_unreadable = on_unreadable
        self._batches: deque[tuple[Channel[C], BatchWriting]] = deque()
        self._busy: set[Channel[C]] = set()
        self._is_scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next_turn: asyncio.Future[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no batch is being written."""
        return not self._batches

    async def wait_for_room(self, channel: Channel[C]) -> None:
        """Wait until few enough bytes of a channel are queued that more may be published."""
        while channel.queued_bytes > QUEUED_BYTES:
            if self._next_turn is None:
                self._next_turn = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._next_turn)

    def wake(self, channel: Channel[C]) -> None:
        """Schedule the delivery of a channel's queued messages. Writes nothing now."""
        if channel in self._busy or not channel.has_queued:
            return
        self._busy.add(channel)
        self._batches.append((channel, self._write_batch(channel)))
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            if self._loop is None:
                self._loop = asyncio.get_running_loop()  # a system call, before Python 3.12
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        written = 0
        for _ in range(len(self._batches)):  # each once: transports hand over to the kernel between turns
            if written >= SLICE_WRITES:
                break
            channel, batch = self._batches.popleft()
            count, is_complete = self._write_slice(channel, batch)
            written += count
            if not is_complete:
                self._batches.append((channel, batch))
            elif channel.has_queued:
                self._batches.append((channel, self._write_batch(channel)))
            else:
                self._busy.discard(channel)
        if self._batches:
            self._schedule()
        if self._next_turn is not None:
            self._next_turn.set_result(None)
            self._next_turn = None

    def _write_slice(self, channel: Channel[C], batch: BatchWriting) -> tuple[int, bool]:
        """Return what the slice counts for, in small writes, and whether the batch is written, or failed."""
        try:
            return next(batch), False
        except StopIteration as end:
            return end.value, True
        except Exception:  # noqa: BLE001 # a defect in one batch: its subscribers reconnect and recover, the others go on
            self._log.write("batch_failed", level="error", exc_info=True, channel=channel.name)
            for connection in channel.connections:
                self._on_failed(connection)
            return 0, True

    def _write_batch(self, channel: Channel[C]) -> BatchWriting:
        """Write one batch of a channel; yield, and in the end return, what each slice counts for."""
        started = time.monotonic()
        batch = channel.take_batch()
        count = worked = 0
        has_recipients = False
        for framing, subscribers, messages in batch.recipients:
            count += batch.work - worked
            worked = batch.work
            if subscribers:
                has_recipients = True
                count = yield from self._write_group(channel.name, framing, subscribers, messages, count)
            if count >= SLICE_WRITES:
                yield count
                count = 0
        if has_recipients:
            now = time.monotonic()
            self._fanout_seconds.observe(now - started)
            if published_at := batch.published_at:
                self._publish_to_socket_seconds.observe(now - published_at)
        return count

    def _write_group(
        self,
        name: str,
        framing: Framing,
        subscribers: Sequence[Subscriber[C]],
        messages: Sequence[ChannelMessage],
        count: int,
    ) -> BatchWriting:
        """Write to subscribers that get the same, in a slice that counts for `count` already.

        Those whose codec cannot encode a message get what comes before it, and are closed.
        """
        try:
            payload = framing.pack(name, messages)
        except PayloadNotJson:
            readable = encodable(messages, framing.codec)
            payload = framing.pack(name, readable) if readable else None
        else:
            readable = messages
        if payload is not None:
            size = SLICE_WRITES if len(payload) <= SMALL_BYTES else SLICE_BYTES // len(payload) or 1
            for start in range(0, len(subscribers), size):
                part = subscribers[start : start + size]
                weight = len(part) * SLICE_WRITES // size or 1
                if count and count + weight > SLICE_WRITES:
                    yield count
                    count = 0
                count += weight
                self._write(name, part, payload)
            self._deliveries.count += len(readable) * len(subscribers)
            self._sent_bytes.count += len(payload) * len(subscribers)
        if readable is not messages:
            count = yield from self._close_unreadable(subscribers, count)
        return count

    def _write(self, name: str, subscribers: Sequence[Subscriber[C]], payload: Any) -> None:
        for subscriber in subscribers:
            try:
                subscriber.write(payload)
            except Exception:  # noqa: BLE001 # one transport's failure must not keep the others from their messages
                self._log.write("write_failed", level="error", exc_info=True, channel=name)
                subscriber.retire()
                self._on_failed(subscriber.connection)

    def _close_unreadable(self, subscribers: Sequence[Subscriber[C]], count: int) -> BatchWriting:
        """Close subscribers, in a slice that counts for `count` already."""
        for start in range(0, len(subscribers), SLICE_CLOSES):
            part = subscribers[start : start + SLICE_CLOSES]
            weight = len(part) * SLICE_WRITES // SLICE_CLOSES
            if count and count + weight > SLICE_WRITES:
                yield count
                count = 0
            count += weight
            for subscriber in part:
                if not subscriber.is_retired:
                    self._on_unreadable(subscriber.connection)
        return count
