"""Delivers the events of one part of the event log to one subscriber, while this node has the claim.

    claim -> read a batch -> attempt -> acknowledge -> read …          (core/delivery.py decides)
          '- another node has it: try again later      '- drain, give up: release

One attempt is in flight at a time, and one batch is in memory. The mutable state is the schedule of the
claimed part, which ends with the claim, and whether this node has the claim and gives it up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from random import random

import msgspec
from msgspec import Raw

from tocsin_server.cancellation import is_cancelled
from tocsin_server.core.delivery import Batch, GiveUp, Result, RetrySchedule
from tocsin_server.core.lifecycle import LifecycleEvent
from tocsin_server.engine.deliveries import DeadLetter, DeliveryStore
from tocsin_server.engine.event_log import ClaimLost, EventReader, StoredEvent
from tocsin_server.errors import EngineError
from tocsin_server.hooks.delivery_log import DeliveryLog
from tocsin_server.hooks.subscriber import Subscriber
from tocsin_server.node.sampled_log import SampledLog

CLAIM_SECONDS = 1.0
"""How often a node tries to claim a part that another node has. Each try costs one command."""

ENGINE_PAUSE_SECONDS = 1.0
"""How long a part waits after the engine failed."""

RELEASE_SECONDS = 1.0
"""How long the release of a claim may take. The store may be gone."""

_encode = msgspec.json.Encoder().encode


class PartDelivery:
    """The deliveries of one part to one subscriber.

    `wake` is called when there may be new events, `give_up` when another node should have the part, `stop`
    when the node drains, `finish` when it stops.
    `clock` returns unix seconds.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        part: int,
        reader: EventReader,
        store: DeliveryStore,
        report: DeliveryLog,
        sampled_log: SampledLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._subscriber = subscriber
        self._part = part
        self._reader = reader
        self._store = store
        self._report = report
        self._sampled_log = sampled_log
        self._clock = clock
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._ending = asyncio.Event()
        self._interrupted = asyncio.Event()
        self.has_claim = False
        """Whether this node delivers the part now."""
        self.is_giving_up = False
        """Whether the claim ends after the attempt that is in flight."""
        options = subscriber.options
        self._schedule = RetrySchedule(options.batch_size, options.retry_for)

    def wake(self) -> None:
        """There may be new events."""
        self._wake.set()

    def give_up(self) -> None:
        """Release the claim after the attempt that is in flight, and try to claim the part again later."""
        if self.has_claim:
            self.is_giving_up = True
            self._interrupted.set()
            self._wake.set()

    def stop(self) -> None:
        """End after the attempt that is in flight."""
        self._stop.set()
        self.finish()

    def finish(self) -> None:
        """Deliver what is in the log, and end then, or at the first attempt that fails."""
        self._ending.set()
        self._interrupted.set()
        self._wake.set()

    async def run(self) -> None:
        """Deliver until stopped. Each failure is logged, and tried again."""
        name = self._subscriber.name
        while not self._stop.is_set():
            pause = ENGINE_PAUSE_SECONDS
            try:
                if self._part < self._reader.parts and await self._reader.claim(name, self._part):
                    await self._run_claimed()
                pause = CLAIM_SECONDS
            except ClaimLost:
                pause = CLAIM_SECONDS
            except EngineError as error:
                self._sampled_log.write(
                    "delivery_waits_for_engine", level="warning", subscriber=name, error=str(error)
                )
            except (Exception, asyncio.CancelledError) as error:  # logged as an error
                if is_cancelled(error):
                    raise
                self._sampled_log.write("delivery_raised", level="error", exc_info=True, subscriber=name)
            finally:
                self._report.released(self._part)
            if self._ending.is_set():
                return
            await self._pause(pause)

    async def _run_claimed(self) -> None:
        """Deliver until stopped. Raises ClaimLost and EngineError."""
        name, options = self._subscriber.name, self._subscriber.options
        self.has_claim = True
        self._schedule = RetrySchedule(options.batch_size, options.retry_for)
        try:
            found = (await self._store.failing(name)).get(self._part)
            if found is not None:
                self._report.failing(self._part, found)
                await self._pause(self._schedule.restore(found, self._clock()))
            while not self._stop.is_set() and not self.is_giving_up and await self._deliver_next():
                pass
        finally:
            self.has_claim = self.is_giving_up = False
            if not self._ending.is_set():
                self._interrupted.clear()
            with suppress(EngineError, TimeoutError):
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._reader.release(name, self._part)

    async def _deliver_next(self) -> bool:
        """Read a batch, and attempt its delivery, or wait for events. Return whether to go on."""
        limit, is_ending = self._schedule.limit, self._ending.is_set()
        self._wake.clear()
        stored = await self._read(limit)
        delay = self._subscriber.options.batch_delay
        if stored and len(stored) < limit and delay and self._schedule.failing is None:
            await self._pause(delay)
            stored = await self._read(limit)
        if stored:
            return await self._attempt(stored)
        await self._forget_failure()
        if is_ending:
            return False
        await self._wake.wait()
        return True

    async def _read(self, limit: int) -> Sequence[StoredEvent]:
        return await self._reader.read(self._subscriber.name, self._part, limit)

    async def _attempt(self, stored: Sequence[StoredEvent]) -> bool:
        """Attempt a delivery, and do what follows. Return whether to go on."""
        wanted = [one for one in stored if self._subscriber.wants(one.event)]
        if not wanted:
            await self._acknowledge(stored)
            return True
        events = [one.event for one in wanted]
        batch = Batch(self._delivery_id(wanted), len(stored), [event.time for event in events])
        outcome = await self._subscriber.deliver(batch.delivery, events)
        if outcome.result is Result.DELIVERED:
            self._report.attempted(self._part, outcome, len(events))
            await self._acknowledge(stored)
            await self._forget_failure()
            self._schedule.delivered()
            return True
        self._report.attempted(self._part, outcome, 0)
        known = self._schedule.failing
        decision = self._schedule.failed(batch, outcome, self._clock(), random())  # noqa: S311 - spreads load
        if isinstance(decision, GiveUp):
            await self._give_up(decision, batch.delivery, stored, wanted)
            return True
        failing = self._schedule.failing
        if failing is not None:
            self._report.failing(self._part, failing)
        if failing != known:
            await self._check_claim(stored)
            await self._store.set_failing(self._subscriber.name, self._part, failing)
        await self._pause(decision.pause)
        return failing is None or not self._ending.is_set()

    async def _give_up(
        self,
        decision: GiveUp,
        delivery: str,
        stored: Sequence[StoredEvent],
        wanted: Sequence[StoredEvent],
    ) -> None:
        """Move events to the dead letters, and acknowledge them with the unwanted ones before them."""
        name, now = self._subscriber.name, self._clock()
        given_up = wanted[: decision.number]
        letters = [dead_letter(one.event, delivery, decision, now) for one in given_up]
        limits = self._subscriber.options.dead_letters
        await self._check_claim(stored)
        dropped = await self._store.add_dead_letters(name, letters, limits)
        self._report.gave_up(decision, delivery, dropped)
        self._report.recovered(self._part)
        await self._acknowledge(stored[: stored.index(given_up[-1]) + 1])
        await self._store.set_failing(name, self._part, None)

    async def _check_claim(self, stored: Sequence[StoredEvent]) -> None:
        """Raise ClaimLost if another node has delivered these events, or may have.

        It took the part over if this node was frozen during the attempt. What this node knows is out of date.
        """
        oldest = await self._read(1)
        if not oldest or oldest[0] not in stored:
            raise ClaimLost

    async def _forget_failure(self) -> None:
        if self._schedule.failing is not None:
            await self._store.set_failing(self._subscriber.name, self._part, None)
            self._schedule.forget()
        self._report.recovered(self._part)

    async def _acknowledge(self, stored: Sequence[StoredEvent]) -> None:
        entries = [one.entry for one in stored]
        await self._reader.acknowledge(self._subscriber.name, self._part, entries)

    def _delivery_id(self, wanted: Sequence[StoredEvent]) -> str:
        """The same for the same events, at every node, so that a receiver knows a repeated delivery."""
        ids = "\n".join((self._subscriber.name, *(one.event.id for one in wanted)))
        return sha256(ids.encode(errors="surrogatepass")).hexdigest()[:32]

    async def _pause(self, seconds: float) -> None:
        """Wait, unless the node drains or stops, or gives up the part."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._interrupted.wait()


def dead_letter(event: LifecycleEvent, delivery: str, decision: GiveUp, now: float) -> DeadLetter:
    """Return the dead letter of an event."""
    return DeadLetter(Raw(_encode(event)), delivery, decision.reason, decision.attempts, decision.status, now)
