"""The reader of a source: the task with which a node reads, publishes and removes entries.

    closed --opened()--> standby --claim()--> reading --not ready--> standby; any --SourceError--> closed

The mutable state is the problem, whether this node reads, and the held channels.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any, NoReturn

import structlog

from tocsin_server.errors import EngineError
from tocsin_server.node.node import Node
from tocsin_server.sources.publishing import BATCH_SECONDS, Deadline, EntryPublisher, Outcome
from tocsin_server.sources.source import OpenSource, Source, SourceError

STANDBY_SECONDS = 1.0
"""How often a node that does not read tries to. A node that is killed is followed within this time."""

HOLD_SECONDS = 1.0
"""How long the entries of a channel wait in which one could not be published."""

HELD_CHANNELS = 1000
"""From so many held channels on, nothing is read until they are tried again."""

MEASURE_SECONDS = 5.0
"""How often the unpublished entries are counted."""

STOP_SECONDS = 2.0
"""How long a node that stops waits for the batch that is being published."""

FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 5.0

log = structlog.get_logger()


class SourceReader:
    """Reads one source while its node runs."""

    def __init__(self, source: Source, node: Node, random: Random | None = None) -> None:
        self._source = source
        self._node = node
        self._metrics = node.metrics
        self._publisher = EntryPublisher(source, node.operations, node.sampled_log)
        self._random = random or Random()  # noqa: S311 - spreads load, hides nothing
        self._failed_attempts = 0
        self._problem = ""
        self.is_reading = False
        """Whether this node is the one that reads."""
        self._held: set[str] = set()
        self._held_until = 0.0
        self._measure_at = 0.0
        self._metrics.source_reading.labels(source.name).set(0)

    def warnings(self) -> Iterator[str]:
        """Why the source cannot be read now, as a sentence, if it cannot."""
        if self._problem:
            yield f"The {self._source.name} cannot be read: {self._problem}."

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read within the context."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> NoReturn:
        """Read until cancelled. A batch that is being published is finished first, within STOP_SECONDS."""
        while True:
            try:
                async with self._source.opened() as opened:
                    await self._serve(opened)
            except SourceError as error:
                self._report(str(error))
            except Exception:
                log.exception("source_reader_failed", source=self._source.name)
                self._problem = "an internal error; see the log"
            finally:
                self._set_reading(is_reading=False)
            bound = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(self._failed_attempts, 16))
            self._failed_attempts += 1
            await asyncio.sleep(self._random.uniform(bound / 2, bound))

    async def _serve(self, opened: OpenSource) -> NoReturn:
        while True:
            if self._node.unready_reason:
                await self._stand_by(opened)
            elif not await opened.claim():
                self._report("")
                self._set_reading(is_reading=False)
                await asyncio.sleep(STANDBY_SECONDS)
            else:
                has_more = await _finishing(self._read_and_publish(opened))
                self._report("")
                self._set_reading(is_reading=True)
                if not has_more:
                    await self._wait(opened)

    async def _stand_by(self, opened: OpenSource) -> None:
        """Let another node read, because this one cannot publish or is about to stop."""
        self._set_reading(is_reading=False)
        await opened.release()
        await asyncio.sleep(STANDBY_SECONDS)

    async def _read_and_publish(self, opened: OpenSource) -> bool:
        """Read and publish one batch. Returns whether there may be further entries that can be published."""
        now = asyncio.get_running_loop().time()
        if now >= self._measure_at:
            await self._measure(opened)
        if now >= self._held_until:
            self._held.clear()
        if len(self._held) >= HELD_CHANNELS:
            return False
        deadline = Deadline(BATCH_SECONDS)  # from before the read: what it returns, no other node has removed
        entries = await opened.read(self._held)
        outcome = await self._publisher.publish(entries, deadline)
        if outcome.held:
            self._held |= outcome.held
            self._held_until = asyncio.get_running_loop().time() + HOLD_SECONDS
        return await self._settle(opened, outcome) > 0

    async def _settle(self, opened: OpenSource, outcome: Outcome) -> int:
        """Remove what was published, and put aside what failed. Returns how many entries that were."""
        name, failed = self._source.name, 0
        if outcome.failures:
            failed = await opened.fail(outcome.failures)
            self._metrics.source_failures.counts[name,] += failed
            for entry, reason in outcome.failures:
                self._node.sampled_log.write(
                    "source_entry_failed",
                    level="warning",
                    source=name,
                    entry=entry.id,
                    channel=entry.channel,
                    error=reason,
                )
        removed = await opened.remove(outcome.published) if outcome.published else ()
        if removed:
            self._metrics.source_publications.counts[name,] += len(removed)
            with suppress(EngineError):  # then the engine remembers them for longer
                keys = [(entry.channel, entry.idempotency_key) for entry in removed]
                await self._node.operations.expire_keys(keys)
        return failed + len(removed)

    async def _measure(self, opened: OpenSource) -> None:
        unpublished = await opened.unpublished()
        self._metrics.source_waiting.labels(self._source.name).set(unpublished.waiting)
        self._metrics.source_lag_seconds.labels(self._source.name).set(unpublished.lag_seconds)
        self._measure_at = asyncio.get_running_loop().time() + MEASURE_SECONDS

    async def _wait(self, opened: OpenSource) -> None:
        """Wait for further entries, and until held channels are tried again at most."""
        seconds = self._source.wait_seconds
        if self._held:
            held_seconds = self._held_until - asyncio.get_running_loop().time()
            seconds = min(seconds, max(0.0, held_seconds))
        if len(self._held) < HELD_CHANNELS:
            await opened.wait(seconds)
        else:  # nothing is read until then, so a source with further entries would not wait
            await asyncio.sleep(seconds)

    def _set_reading(self, *, is_reading: bool) -> None:
        if is_reading == self.is_reading:
            return
        self.is_reading = is_reading
        name = self._source.name
        self._metrics.source_reading.labels(name).set(int(is_reading))
        if is_reading:
            log.info("source_reading_began", source=name)
        else:
            log.info("source_reading_ended", source=name)
            self._metrics.source_waiting.labels(name).set(0)
            self._metrics.source_lag_seconds.labels(name).set(0)
            self._measure_at = 0.0

    def _report(self, problem: str) -> None:
        """Note why the source cannot be read, or that it can, and log it if that has changed."""
        if not problem:
            self._failed_attempts = 0
        if bool(problem) != bool(self._problem):
            if problem:
                log.warning("source_not_available", source=self._source.name, error=problem)
            else:
                log.info("source_available", source=self._source.name)
        self._problem = problem


async def _finishing(batch: Coroutine[Any, Any, bool]) -> bool:
    """Await a batch. If the caller is cancelled, the batch is finished first, within STOP_SECONDS."""
    task = asyncio.ensure_future(batch)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        try:
            await asyncio.wait([task], timeout=STOP_SECONDS)
        finally:
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it
        raise
