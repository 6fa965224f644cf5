"""One run of the load tool: connect, publish, wait for the last deliveries, report."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import jwt

from tocsin.errors import CallError
from tocsin.publisher import AsyncPublisher

from . import limits
from .deliveries import count_deliveries
from .messages import Result, Share
from .rate_publisher import PublishingPlan, RatePublisher
from .report import Report
from .worker_pool import WorkerPool

SETTLE_SECONDS = 20.0  # beyond the time that the connect rate takes, for repeated attempts
BEGIN_SECONDS = 5.0
UNKNOWN_CHANNEL, NOT_AVAILABLE = 102, 108
TOKEN_MARGIN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a run, those of ``tocsin load``.

    ``processes``: 0 for a suitable number. ``rate``: connects a second, 0 for all at once.
    ``grace_seconds``: the time for the last deliveries.
    """

    urls: Sequence[str]
    connections: int
    transport: str
    channels: int
    channel_prefix: str
    rate: float
    publish_rate: float
    size: int
    seconds: float
    count: int
    processes: int
    token: str
    secret: str
    api_key: str
    grace_seconds: float = 10.0


class ProgressDisplay(Protocol):
    """Shows the progress of a run."""

    def show_phase(self, name: str, workers: WorkerPool, publisher: RatePublisher) -> None:
        """Show the next phase. The run calls this when a phase begins."""

    def update(self) -> None:
        """Show the current figures. The run calls this after each progress report of a worker."""


class Run:
    """One run. The mutable state is the publisher and ``_stopped``; ``run`` and ``stop`` change it."""

    def __init__(self, plan: Plan, display: ProgressDisplay) -> None:
        self._plan = plan
        self._display = display
        self._stopped = asyncio.Event()
        self._publisher: RatePublisher | None = None

    def stop(self) -> None:
        """End all phases early. May be called at any time; ``run`` then reports the results so far."""
        self._stopped.set()
        if self._publisher is not None:
            self._publisher.stop()

    async def run(self) -> Report:
        """Run all phases. Raises ``TocsinError`` if the API cannot be used, and ``TooManyFiles``."""
        plan = self._plan
        files = limits.raise_file_limit()
        processes = limits.processes_for(plan.connections, plan.processes, files)
        channels = await find_channels(plan)
        run = secrets.token_hex(4)
        total = plan.count or max(1, round(plan.publish_rate * plan.seconds))
        publishing = PublishingPlan(channels, plan.publish_rate, plan.size, plan.seconds, total, run)
        publisher = self._publisher = RatePublisher(publishing, plan.urls, plan.api_key)
        async with WorkerPool(_shares(plan, processes, channels, run)) as workers:
            workers.on_progress = self._display.update
            await self._connect_and_publish(workers, publisher)
            self._display.show_phase("waiting for the last deliveries", workers, publisher)
            results = await workers.finish(publisher.tops, plan.grace_seconds)
            return _report(plan, workers, publisher, results)

    async def _connect_and_publish(self, workers: WorkerPool, publisher: RatePublisher) -> None:
        plan = self._plan
        self._display.show_phase("connecting", workers, publisher)
        connect_seconds = SETTLE_SECONDS + (
            plan.connections / plan.rate if plan.rate else plan.connections / 500
        )
        await self._until_stopped(workers.wait_settled(connect_seconds))
        if self._stopped.is_set():
            return
        await workers.begin_publishing(BEGIN_SECONDS)
        if plan.publish_rate:
            self._display.show_phase("publishing", workers, publisher)
            await publisher.run()
        else:
            self._display.show_phase("holding", workers, publisher)
            await self._until_stopped(asyncio.sleep(plan.seconds))

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(work),
            asyncio.create_task(self._stopped.wait()),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def find_channels(plan: Plan) -> list[str]:
    """Return the channels. The default prefix is ``load:`` if that namespace exists, else ``load-``."""
    prefix = plan.channel_prefix
    async with AsyncPublisher(plan.urls[0], plan.api_key) as publisher:
        try:
            await publisher.history(f"{prefix or 'load:'}0", limit=0)
            prefix = prefix or "load:"
        except CallError as error:
            if error.code == NOT_AVAILABLE:  # the channel exists, and has no history
                prefix = prefix or "load:"
            elif error.code == UNKNOWN_CHANNEL and not prefix:
                prefix = "load-"
            else:
                raise
    return [f"{prefix}{number}" for number in range(plan.channels)]


def _shares(plan: Plan, processes: int, channels: list[str], run: str) -> list[Share]:
    """Divide the connections evenly over the processes."""
    borders = [plan.connections * number // processes for number in range(processes + 1)]
    sources = limits.sources_for(plan.connections, plan.urls)
    return [
        Share(
            urls=list(plan.urls),
            transport=plan.transport,
            channels=channels,
            first=first,
            connections=last - first,
            rate=plan.rate / processes,
            run=run,
            tokens=_tokens(plan, first, last),
            sources=sources,
        )
        for first, last in pairwise(borders)
        if last > first
    ]


def _tokens(plan: Plan, first: int, last: int) -> list[str]:
    if not plan.secret:
        return [plan.token] if plan.token else []
    expiry = int(time.time() + plan.seconds) + TOKEN_MARGIN_SECONDS
    return [
        jwt.encode({"sub": f"load-{number}", "exp": expiry}, plan.secret, algorithm="HS256")
        for number in range(first, last)
    ]


def _report(plan: Plan, workers: WorkerPool, publisher: RatePublisher, results: list[Result]) -> Report:
    report = Report(
        connections=plan.connections,
        connected=sum(len(result.summaries) for result in results),
        connect_seconds=workers.connect_seconds,
        lost_connections=workers.lost_connections,
        still_disconnected=sum(not one.is_connected for result in results for one in result.summaries),
        sent=publisher.sent,
        acknowledged=publisher.acknowledged_count,
        publish_seconds=publisher.seconds,
        delivered=sum(one.total for result in results for one in result.seconds.values()),
        foreign=sum(result.foreign for result in results),
        dead_workers=workers.dead_workers,
        deliveries=count_deliveries(
            (one for result in results for one in result.summaries), publisher.acknowledged
        ),
        connect_failures=dict(sum((Counter(result.failures) for result in results), Counter[str]())),
        publish_failures=dict(publisher.failures),
    )
    for result in results:
        report.reconnects.merge(result.reconnects)
        for second, latency in result.seconds.items():
            report.add_second(second, latency)
    return report
