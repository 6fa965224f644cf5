"""Publishing the entries of a source: each channel in order, and the channels beside each other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog

from tocsin_server.core.glob import Glob
from tocsin_server.errors import EngineError, Refused
from tocsin_server.loop_turns import LoopTurns
from tocsin_server.node.operations import Operations
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.sources.entry import InvalidEntry, SourceEntry, new_publication
from tocsin_server.sources.source import Failure, Source

PUBLISH_SECONDS = 10.0
"""How long one publication may take, with the wait for room in its channel's queue."""

BATCH_SECONDS = 60.0
"""How long after it was read the entries of a batch are published. Another node may have the claim by then.

If that one has published and removed them, the engine knows their keys for IDEMPOTENCY_SECONDS longer.
"""

DEFECT = "an internal error; see the log"

log = structlog.get_logger()


class Deadline:
    """When a batch ends: some seconds from now, by the first of two clocks.

    One of them stands still while the machine is suspended, and the other one may be set back.
    """

    def __init__(
        self, seconds: float, clocks: Sequence[Callable[[], float]] = (time.monotonic, time.time)
    ) -> None:
        self._ends = [(clock, clock() + seconds) for clock in clocks]

    @property
    def seconds_left(self) -> float:
        """How long the batch may go on. 0 or less: it ends."""
        return min(end - clock() for clock, end in self._ends)


class Outcome:
    """What became of a batch of entries."""

    def __init__(self) -> None:
        self.published: list[SourceEntry] = []
        self.failures: list[Failure] = []
        self.held: set[str] = set()
        """Channels in which an entry could not be published now. What follows it there was not tried."""


class EntryPublisher:
    """Publishes batches of entries of one source.

    A channel's next entry is published once the one before it is: only so the order survives a publication
    that fails and is repeated.
    """

    def __init__(self, source: Source, operations: Operations, sampled_log: SampledLog) -> None:
        self._name = source.name
        self._globs = [Glob(glob) for glob in source.channels]
        self._operations = operations
        self._turns = LoopTurns()
        self._sampled_log = sampled_log

    async def publish(self, entries: Sequence[SourceEntry], deadline: Deadline) -> Outcome:
        """Publish a batch. Raises nothing: each entry is published, failed, or left for another time.

        No publication begins after the deadline.
        """
        outcome = Outcome()
        channels: dict[str, list[SourceEntry]] = {}
        for entry in entries:
            channels.setdefault(entry.channel, []).append(entry)
        await asyncio.gather(*(self._publish_in_order(one, deadline, outcome) for one in channels.values()))
        order = {entry.id: number for number, entry in enumerate(entries)}
        outcome.failures.sort(key=lambda failure: order[failure.entry.id])
        return outcome

    async def _publish_in_order(
        self, entries: Sequence[SourceEntry], deadline: Deadline, outcome: Outcome
    ) -> None:
        for entry in entries:
            await self._turns.wait()
            seconds = min(PUBLISH_SECONDS, deadline.seconds_left)
            if seconds <= 0:
                return
            try:
                await self._publish(entry, seconds)
            except (InvalidEntry, Refused) as error:
                if isinstance(error, Refused) and error.refusal.temporary:
                    self._hold(entry, str(error), outcome)
                    return
                outcome.failures.append(Failure(entry, str(error)))
            except (EngineError, TimeoutError) as error:
                self._hold(entry, str(error) or "no answer in time", outcome)
                return
            except Exception:  # noqa: BLE001 - logged as an error; the entry is kept with this reason
                self._sampled_log.write(
                    "source_entry_raised", level="error", exc_info=True, source=self._name, entry=entry.id
                )
                outcome.failures.append(Failure(entry, DEFECT))
            else:
                outcome.published.append(entry)

    async def _publish(self, entry: SourceEntry, seconds: float) -> None:
        publication = new_publication(entry)
        if self._globs and not any(glob.matches(entry.channel) for glob in self._globs):
            raise InvalidEntry(f"its channel is not one of {self._name}.channels")
        async with asyncio.timeout(seconds):
            await self._operations.publish(entry.channel, publication)

    def _hold(self, entry: SourceEntry, error: str, outcome: Outcome) -> None:
        outcome.held.add(entry.channel)
        self._sampled_log.write(
            "source_channel_held",
            level="warning",
            source=self._name,
            entry=entry.id,
            channel=entry.channel,
            error=error,
        )
