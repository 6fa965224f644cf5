"""The deliveries of lifecycle events of one node: every subscriber, and every part of the event log.

For each subscriber and part one task of the node delivers, or tries to claim the part. One more task waits
for new events. Without subscribers there is none.

The mutable state is the subscribers, which are added before the node runs, and whether the node drains.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

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


@dataclass(frozen=True, eq=False)
class _Running:
    """A subscriber while the node runs: what is told about it, and its parts."""

    subscriber: Subscriber
    report: DeliveryLog
    parts: list[PartDelivery] = field(default_factory=list)


class Deliveries:
    """Delivers lifecycle events while the node runs. Implements the node's Service.

    `reader` and `store` are parts of the engine. `clock` returns unix seconds.
    """

    def __init__(
        self,
        reader: EventReader,
        store: DeliveryStore,
        metrics: Metrics,
        sampled_log: SampledLog,
        subscribers: Sequence[Subscriber] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._reader = reader
        self.store = store
        self._metrics = metrics
        self._sampled_log = sampled_log
        self._clock = clock
        self._subscribers: dict[str, Subscriber] = {}
        self._running: list[_Running] = []
        self._is_stopping = False
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
        """Deliver until `stop` is called, and the attempts in flight have ended."""
        if not self._subscribers or self._is_stopping:
            return
        async with AsyncExitStack() as opened:
            for subscriber in self._subscribers.values():
                await opened.enter_async_context(subscriber.open())
                self._running.append(self._prepared(subscriber))
            try:
                async with asyncio.TaskGroup() as tasks:
                    waiting = tasks.create_task(self._wake_parts())
                    delivering = [tasks.create_task(part.run()) for part in self._all_parts()]
                    for task in delivering:
                        await task
                    waiting.cancel()
            finally:
                self._running.clear()

    def stop(self) -> None:
        """Begin no attempts, and release the claims once those in flight have ended. Idempotent."""
        self._is_stopping = True
        for part in self._all_parts():
            part.stop()

    def _prepared(self, subscriber: Subscriber) -> _Running:
        report = DeliveryLog(subscriber.name, self._metrics, self._sampled_log, self._clock)
        running = _Running(subscriber, report)
        for part in range(self._reader.parts):
            running.parts.append(
                PartDelivery(
                    subscriber, part, self._reader, self.store, report, self._sampled_log, self._clock
                )
            )
        return running

    def _all_parts(self) -> list[PartDelivery]:
        return [part for running in self._running for part in running.parts]

    async def _wake_parts(self) -> None:
        """Wake every part when there may be new events, until cancelled."""
        seen = 0
        while True:
            try:
                seen = await self._reader.wait(seen, POLL_SECONDS)
            except EngineError:
                await asyncio.sleep(POLL_SECONDS)
            for part in self._all_parts():
                part.wake()
