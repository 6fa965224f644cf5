"""The collector of the lifecycle run: reads all events as a subscriber does, from an engine of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.faults.cluster import config_with_engine
from tests.faults.lifecycle_audit import Audit
from tests.server.engine.recording_handler import RecordingHandler
from tests.support.timing import TICK
from tocsin_server.config.loading import Settings
from tocsin_server.core.lifecycle import EventBatch, WriteOutcome
from tocsin_server.engine.event_log import ClaimLost, EventLog
from tocsin_server.engine.factory import create_engine, digest_of_histories
from tocsin_server.errors import EngineError

SUBSCRIBER = "collector"
READ_AT_ONCE = 1000


class Collector:
    """Gives every event to the audit, with the time at which Redis wrote it.

    So neither the clients' process nor the collector itself delays what is measured. Its engine records no
    events, and therefore does no work for dead nodes.
    """

    def __init__(self, url: str, audit: Audit) -> None:
        settings = Settings.model_validate(config_with_engine(url))
        self._engine = create_engine(settings.engine, digest_of_histories(settings), settings.events)
        self._audit = audit
        self._batch = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Collect until the block ends."""
        await self._engine.start(RecordingHandler(SUBSCRIBER))
        try:
            async with asyncio.TaskGroup() as tasks:
                collecting = tasks.create_task(self._collect())
                yield
                collecting.cancel()
        finally:
            await self._engine.stop()

    async def _collect(self) -> None:
        log, seen, is_open = self._engine.event_log, 0, False
        while True:
            try:
                if not is_open:
                    await log.open(SUBSCRIBER)
                    self._batch, is_open = 0, True
                for part in range(log.parts):
                    await self._read(log, part)
                is_open = await self._renew(log)
                await asyncio.sleep(TICK)
                seen = await log.wait(seen, 5 * TICK)
            except ClaimLost:
                continue
            except EngineError:
                await asyncio.sleep(TICK)

    async def _renew(self, log: EventLog) -> bool:
        """Find out whether the log still knows this reader."""
        if await log.write(EventBatch(self._batch + 1, (), {})) is not WriteOutcome.WRITTEN:
            return False
        self._batch += 1
        return True

    async def _read(self, log: EventLog, part: int) -> None:
        if not await log.claim(SUBSCRIBER, part):
            return
        while stored := await log.read(SUBSCRIBER, part, READ_AT_ONCE):
            for one in stored:
                self._audit.take(one.event, written_at(one.entry))
            await log.acknowledge(SUBSCRIBER, part, [one.entry for one in stored])


def written_at(entry: str) -> float:
    """The Unix second of Redis' clock at which it wrote an entry: its id begins with the milliseconds."""
    return int(entry.partition("-")[0]) / 1000
