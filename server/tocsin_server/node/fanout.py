"""Fan-out: writes what channels have waiting to everybody who hears them, a slice at a time.

A publication waits until the loop's next turn, together with everything else its channel hears meanwhile.
What arrives while a batch is being written leaves joined in the next one, so batching grows by itself under
load and costs an idle channel nothing. A slice ends after SLICE writes, so that ten thousand subscribers
never stall a ping or a handshake; channels take turns.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic

import structlog

from tocsin_server.core.channel import Batch, C, Channel
from tocsin_server.metrics.registry import Metrics

SLICE = 200
"""Writes per turn: at 5-6 µs each about a millisecond, a tenth of what a person could notice."""

QUEUED_BYTES = 4 * 1_048_576
"""What may wait in one channel before publishers wait too: some ten thousand publications."""

log = structlog.get_logger()


class FanOut(Generic[C]):
    """Writes batches of channels in turn. Owns no task: each turn is a callback of the running loop.

    `on_failed(peer)` is told of a peer whose transport raised: what it has missed it must not miss silently.
    What is counted is counted once a batch, so that it costs nothing for each peer.
    """

    def __init__(self, metrics: Metrics, on_failed: Callable[[C], None]) -> None:
        self._metrics = metrics
        self._on_failed = on_failed
        self._batches: deque[tuple[Channel[C], Iterator[int]]] = deque()
        self._busy: set[Channel[C]] = set()
        self._is_scheduled = False
        self._next_turn: asyncio.Future[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be written."""
        return not self._batches

    async def wait_for_room(self, channel: Channel[C]) -> None:
        """Wait until a channel has few enough bytes waiting that more may be published."""
        while channel.queued_bytes > QUEUED_BYTES:
            if self._next_turn is None:
                self._next_turn = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._next_turn)

    def wake(self, channel: Channel[C]) -> None:
        """A channel has something waiting. Writes nothing now."""
        if channel in self._busy or not channel.has_queued:
            return
        self._busy.add(channel)
        self._batches.append((channel, self._write_batch(channel)))
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._is_scheduled = False
        written = 0
        for _ in range(len(self._batches)):  # once each: a transport hands over to the kernel between turns
            if written >= SLICE:
                break
            channel, batch = self._batches.popleft()
            slice_written = self._write_slice(channel, batch)
            if slice_written is not None:
                written += slice_written
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

    def _write_slice(self, channel: Channel[C], batch: Iterator[int]) -> int | None:
        """How many writes it was; None once the batch is written, or could not be."""
        try:
            return next(batch, None)
        except Exception:  # a fault of ours in one batch: its readers come back and recover, the others go on
            log.exception("a batch failed", channel=channel.name)
            for peer in channel.connections:
                self._on_failed(peer)
            return None

    def _write_batch(self, channel: Channel[C]) -> Iterator[int]:
        """Write one batch of a channel; yields after each slice how many writes it was."""
        started = time.monotonic()
        batch = channel.take_batch()
        for framing, members, items in batch.recipients:
            payload = framing.pack(channel.name, items)
            for start in range(0, len(members), SLICE):
                part = members[start : start + SLICE]
                for member in part:
                    try:
                        member.write(payload)
                    except Exception:  # whatever one peer's transport does, the others are written to
                        log.exception("a write failed", channel=channel.name)
                        member.retire()
                        self._on_failed(member.connection)
                yield len(part)
            self._metrics.deliveries.count += len(items) * len(members)
            self._metrics.sent_bytes.count += len(payload) * len(members)
        if batch.recipients:
            self._time(batch, started)

    def _time(self, batch: Batch[C], started: float) -> None:
        now = time.monotonic()
        self._metrics.fanout_seconds.observe(now - started)
        if batch.published_at:
            self._metrics.publish_to_socket_seconds.observe(now - batch.published_at)
