"""The lifecycle writer: writes what the recorder of a node has recorded to the engine's event log.

    recorder --next_batch()--> write() --outcome--> settle()

One batch is in flight at a time. No client waits for it. While the log cannot be written, events wait in the
recorder, which bounds them.

The mutable state is the recorder, whether the log is open, whether the writer stops, since when and why
events cannot be written, and the last figures of the log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog

from tocsin_server.config.event_options import EventOptions
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.events import Effect, Event, Timestamp
from tocsin_server.core.lifecycle import EventBatch, WriteOutcome
from tocsin_server.core.lifecycle_recorder import LifecycleRecorder
from tocsin_server.engine.event_log import EventLog, LogFigures
from tocsin_server.errors import EngineError
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.connection import Connection

PAUSE_SECONDS = 0.01
"""The pause after a batch, so that the events of many sessions are written together."""

CHECK_SECONDS = 1.0
"""After so long without events an empty batch is written. So a node finds out that it was taken for dead."""

RETRY_SECONDS = 0.25
"""The pause after a failure."""

WARNING_SECONDS = 5.0
"""From when on unwritten events are a warning in /health/ready: longer than a reconnect to Redis."""

FIGURES_SECONDS = 5.0
"""How often the figures of the log are read."""

STOP_SECONDS = 3.0
"""How long the writer tries to write the last events. Then other nodes say the end of the sessions."""

log = structlog.get_logger()


class LifecycleWriter:
    """Records and writes the lifecycle events of one node."""

    def __init__(
        self,
        name: str,
        uid: str,
        options: EventOptions,
        rules: ChannelRules,
        event_log: EventLog,
        now: Callable[[], Timestamp],
        metrics: Metrics,
    ) -> None:
        self._name = name
        self._types = frozenset(options.types)
        self._log = event_log
        self._now = now
        self._metrics = metrics
        self._recorder = LifecycleRecorder(options.types, _records(rules), name, uid, options.waiting_bytes)
        self._recorded = asyncio.Event()
        self._is_stopping = False
        self._is_open = False
        self._failing_since = 0.0  # monotonic; 0 while events are written
        self._error = ""
        self._logged_drops = 0
        self._figures_at = 0.0
        self._has_figures = False
        self._deadline: asyncio.Timeout | None = None
        self.figures = LogFigures()
        """The figures of the log, as last read."""

    @property
    def waiting_count(self) -> int:
        """How many events are not written yet."""
        return self._recorder.waiting_count

    @property
    def dropped_count(self) -> int:
        """How many events were dropped while too many waited."""
        return self._recorder.dropped_count

    @property
    def failing_seconds(self) -> float:
        """How long events cannot be written; 0 if they can."""
        return self._now().monotonic - self._failing_since if self._failing_since else 0.0

    def warnings(self) -> Sequence[str]:
        """That events cannot be written for long, as a sentence."""
        if not self._failing_since or self.failing_seconds < WARNING_SECONDS:
            return ()
        events = f"{self.waiting_count} lifecycle events wait, because none can be written"
        dropped = f" {self.dropped_count} were dropped." if self.dropped_count else ""
        return (f"{events} for {self.failing_seconds:.0f} s ({self._error}).{dropped}",)

    def observe(
        self, connection: Connection, event: Event, effects: Sequence[Effect], now: Timestamp
    ) -> None:
        """Record what a connection's session does."""
        self._recorder.observe(connection.session, connection.transport_name, event, effects, now)
        if self._recorder.has_waiting and not self._recorded.is_set():
            self._recorded.set()

    def stop(self) -> None:
        """Let `run` end once all events are written, or after STOP_SECONDS."""
        self._is_stopping = True
        self._recorded.set()
        if self._deadline is not None:
            self._deadline.reschedule(asyncio.get_running_loop().time() + STOP_SECONDS)

    async def run(self) -> None:
        """Write until `stop`. A failure is logged, and the writer goes on."""
        try:
            async with asyncio.timeout(STOP_SECONDS if self._is_stopping else None) as self._deadline:
                while not await self._guarded_step():
                    pass
                await self._log.close()
        except (TimeoutError, EngineError) as error:
            log.warning("lifecycle_events_left_to_other_nodes", count=self.waiting_count, error=str(error))
        finally:
            self._deadline = None

    async def _guarded_step(self) -> bool:
        """Wait for events, and write a batch. Returns True once all are written and the writer stops."""
        try:
            if not self._is_open:
                await self._open()
            if self._is_stopping and not self._recorder.has_waiting:
                return True
            await self._wait()
            await self._write()
        except Exception as error:
            self._note_failure(type(error).__name__)
            log.exception("lifecycle_writer_failed")
            await asyncio.sleep(RETRY_SECONDS)
        return False

    async def _wait(self) -> None:
        """Wait until there are events, at most CHECK_SECONDS."""
        if not self._recorder.has_waiting and not self._is_stopping:
            self._recorded.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._recorded.wait()
        if not self._is_stopping:
            await asyncio.sleep(PAUSE_SECONDS)

    async def _open(self) -> None:
        while True:
            try:
                await self._log.open(self._name, self._recorder.clients)
            except EngineError as error:
                await self._pause_after(error)
            else:
                self._is_open = True
                return

    async def _write(self) -> None:
        batch = self._recorder.next_batch()
        try:
            outcome = await self._log.write(batch)
        except EngineError as error:
            await self._pause_after(error)
            return
        self._is_open = outcome is WriteOutcome.WRITTEN
        self._recorder.settle(outcome, self._now())
        self._note_success(batch, outcome)
        with suppress(EngineError):  # the next write tells
            await self._read_figures()

    async def _read_figures(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._figures_at:
            return
        self._figures_at = now + FIGURES_SECONDS
        before, self.figures = self.figures, await self._log.figures()
        count = self.figures.trimmed - before.trimmed
        is_first, self._has_figures = not self._has_figures, True
        if count > 0 and not is_first:
            log.warning(
                "unread_events_removed",
                count=count,
                hint="events.retention or events.size is too small for a subscriber that is behind or gone",
            )

    def _note_success(self, batch: EventBatch, outcome: WriteOutcome) -> None:
        if self._failing_since:
            self._failing_since = 0.0
            log.info("lifecycle_events_written_again", waiting=self.waiting_count)
        if outcome in (WriteOutcome.WRITTEN, WriteOutcome.WRITTEN_AND_REAPED):
            for event in batch.events:
                if event.type in self._types:
                    self._metrics.lifecycle_events.add(event.type)

    def _note_failure(self, error: str) -> None:
        self._error = error
        self._failing_since = self._failing_since or self._now().monotonic

    async def _pause_after(self, error: EngineError) -> None:
        is_first = not self._failing_since
        self._note_failure(str(error))
        if is_first:
            log.warning("lifecycle_events_delayed", error=str(error))
        if self.dropped_count > self._logged_drops:
            log.warning("lifecycle_events_dropped", count=self.dropped_count - self._logged_drops)
            self._logged_drops = self.dropped_count
        await asyncio.sleep(RETRY_SECONDS)


def _records(rules: ChannelRules) -> Callable[[str], bool]:
    def records(channel: str) -> bool:
        options = rules.options_for(channel)
        return options is not None and options.record_events

    return records
