"""The deliveries of lifecycle events of one node: every subscriber, and every part of the event log.

For each subscriber and part one task of the node delivers, or tries to claim the part. One more task waits
for new events, and one balances the claims with other nodes. Without subscribers there is none.

The mutable state is the subscribers, which are added before the node runs, their parts while it runs, and
whether the node drains or stops.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field

import structlog

from tocsin_server.engine.deliveries import DeliveryStore
from tocsin_server.engine.event_log import EventReader
from tocsin_server.errors import EngineError
from tocsin_server.hooks.delivery_log import DeliveryLog
from tocsin_server.hooks.part_delivery import PartDelivery
from tocsin_server.hooks.subscriber import Subscriber
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.sampled_log import SampledLog

POLL_SECONDS = 2.0
"""The longest time after which parts are read again, if the announcement of new events is lost."""

BALANCE_SECONDS = 2.0
"""How often a node finds out whether other nodes have fewer parts. It costs one command for a subscriber."""

STOP_SECONDS = 1.0
"""How long attempts in flight may go on once the node stops, if another node can repeat them."""

LEAVE_SECONDS = 1.0
"""How long a node that drains tries to tell the others that its parts are theirs. The store may be gone."""

log = structlog.get_logger()


@dataclass(frozen=True, eq=False)
class _Running:
    """A subscriber while the node runs: what is told about it, and its parts."""

    subscriber: Subscriber
    report: DeliveryLog
    parts: list[PartDelivery] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    """Those of the parts."""

    def give_up(self, surplus: int) -> None:
        """Give up so many parts, with those that are being given up."""
        held = [part for part in self.parts if part.has_claim]
        surplus -= sum(part.is_giving_up for part in held)
        for part in [part for part in held if not part.is_giving_up][: max(0, surplus)]:
            part.give_up()


class Deliveries:
    """Delivers lifecycle events while the node runs. Implements BackgroundWork of the node.

    `reader` and `store` are parts of the engine, `is_shared` says whether other nodes may have it, too.
    `clock` returns unix seconds.
    """

    def __init__(
        self,
        reader: EventReader,
        store: DeliveryStore,
        metrics: Metrics,
        sampled_log: SampledLog,
        subscribers: Sequence[Subscriber] = (),
        *,
        is_shared: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reader = reader
        self.store = store
        self._metrics = metrics
        self._sampled_log = sampled_log
        self._is_shared = is_shared
        self._clock = clock
        self._subscribers: dict[str, Subscriber] = {}
        self._running: list[_Running] = []
        self._stopping = asyncio.Event()
        self._ends_attempts: asyncio.TimerHandle | None = None
        for subscriber in subscribers:
            self.add(subscriber)

    @property
    def subscribers(self) -> Sequence[Subscriber]:
        """Every subscriber."""
        return list(self._subscribers.values())

    @property
    def warnings(self) -> Sequence[str]:
        """Which subscribers have not taken events for long, as sentences."""
        return [running.report.warning for running in self._running if running.report.warning]

    def add(self, subscriber: Subscriber) -> None:
        """Add a subscriber. Raises ValueError if another one has its name, and once the node runs."""
        if self._running:
            raise ValueError("subscribers of events must be added before the node runs")
        if subscriber.name in self._subscribers:
            raise ValueError(f"there is already a subscriber of events with the name {subscriber.name}")
        self._subscribers[subscriber.name] = subscriber

    def find(self, name: str) -> Subscriber | None:
        """Return the subscriber of a name."""
        return self._subscribers.get(name)

    async def run(self) -> None:
        """Deliver until `drain` or `stop` is called, and the attempts in flight have ended."""
        if not self._subscribers or self._stopping.is_set():
            return
        async with AsyncExitStack() as opened:
            for subscriber in self._subscribers.values():
                await opened.enter_async_context(subscriber.open())
                report = DeliveryLog(subscriber.name, self._metrics, self._sampled_log, self._clock)
                self._running.append(_Running(subscriber, report))
            try:
                async with asyncio.TaskGroup() as tasks:
                    working = [tasks.create_task(self._wake_parts(tasks))]
                    if self._is_shared:
                        working.append(tasks.create_task(self._balance()))
                    await self._stopping.wait()
                    for task in working:
                        task.cancel()
                    await self._leave()
            finally:
                if self._ends_attempts is not None:
                    self._ends_attempts.cancel()
                self._running.clear()

    def drain(self) -> None:
        """Begin no attempts, and release the claims once those in flight have ended. Idempotent.

        Where no other node has the event log, the deliveries go on until `stop`.
        """
        if self._is_shared:
            self._stopping.set()
            for part in self._all_parts():
                part.stop()

    def stop(self) -> None:
        """Deliver what is in the log, without retries, and end. Idempotent.

        Where another node has the event log, too, it repeats attempts that take longer than STOP_SECONDS.
        """
        self._stopping.set()
        for part in self._all_parts():
            part.finish()
        if self._is_shared and self._ends_attempts is None:
            self._ends_attempts = asyncio.get_running_loop().call_later(STOP_SECONDS, self._end_attempts)

    def _end_attempts(self) -> None:
        """Cancel the attempts in flight. Their events are not acknowledged."""
        for running in self._running:
            if parts := sum(part.has_claim for part in running.parts):
                log.info("deliveries_left_to_other_nodes", subscriber=running.subscriber.name, parts=parts)
            for task in running.tasks:
                task.cancel()

    def _begin_parts(self, tasks: asyncio.TaskGroup) -> None:
        """Begin with the parts that are new: the log learns their number from other nodes."""
        for running in self._running:
            for number in range(len(running.parts), self._reader.parts):
                part = PartDelivery(
                    running.subscriber,
                    number,
                    self._reader,
                    self.store,
                    running.report,
                    self._sampled_log,
                    self._clock,
                )
                running.parts.append(part)
                running.tasks.append(tasks.create_task(part.run()))

    def _all_parts(self) -> list[PartDelivery]:
        return [part for running in self._running for part in running.parts]

    async def _balance(self) -> None:
        """Give up parts while other nodes have fewer, until cancelled."""
        while True:
            await asyncio.sleep(BALANCE_SECONDS)
            for running in self._running:
                try:
                    running.give_up(await self._reader.surplus(running.subscriber.name))
                except EngineError:
                    continue  # it is found out the next time
                except Exception:  # noqa: BLE001 - logged as an error; the parts must go on
                    self._sampled_log.write("delivery_raised", level="error", exc_info=True)

    async def _leave(self) -> None:
        """Let other nodes claim all parts, although attempts of this one may still be in flight."""
        with suppress(EngineError, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                for running in self._running:
                    await self._reader.leave(running.subscriber.name)

    async def _wake_parts(self, tasks: asyncio.TaskGroup) -> None:
        """Wake every part when there may be new events, until cancelled."""
        seen = 0
        while True:
            self._begin_parts(tasks)
            try:
                seen = await self._reader.wait(seen, POLL_SECONDS)
            except EngineError:
                await asyncio.sleep(POLL_SECONDS)
            except Exception:  # noqa: BLE001 - logged as an error; the parts must go on
                self._sampled_log.write("delivery_raised", level="error", exc_info=True)
                await asyncio.sleep(POLL_SECONDS)
            for part in self._all_parts():
                part.wake()
