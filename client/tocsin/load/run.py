"""One run of the load script: connect, publish, let everybody hear the last, judge."""

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
from .crew import Crew
from .messages import Result, Share
from .publishing import Load, Publishing
from .report import Report
from .verdict import judge

SETTLE_SECONDS = 20.0  # beyond what the connect rate takes: attempts that fail come back in this time
BEGIN_SECONDS = 5.0
UNKNOWN_CHANNEL, NOT_AVAILABLE = 102, 108
TOKEN_MARGIN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Plan:
    """What a user asked for. ``processes`` 0 finds a number; ``rate`` is in connects a second, 0 for at once.

    ``grace_seconds``: how long connections may take to hear the last publication.
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


class Watcher(Protocol):
    """Who shows a run while it lasts. ``phase`` says what goes on, ``moved`` that the numbers may be new."""

    def phase(self, name: str, crew: Crew, publishing: Publishing) -> None:
        """Something else begins."""

    def moved(self) -> None:
        """A worker has told how it stands."""


class Run:
    """One run. ``stop`` may be called at any time: what there is then is judged and reported."""

    def __init__(self, plan: Plan, watcher: Watcher) -> None:
        self._plan = plan
        self._watcher = watcher
        self._stopped = asyncio.Event()
        self._publishing: Publishing | None = None

    def stop(self) -> None:
        """Go on with the next phase, and with those after it."""
        self._stopped.set()
        if self._publishing is not None:
            self._publishing.stop()

    async def run(self) -> Report:
        """Do everything. Raises ``TocsinError`` for an API that cannot be used, ``TooManyFiles``."""
        plan = self._plan
        files = limits.raise_file_limit()
        processes = limits.processes_for(plan.connections, plan.processes, files)
        channels = await find_channels(plan)
        run = secrets.token_hex(4)
        total = plan.count or max(1, round(plan.publish_rate * plan.seconds))
        load = Load(channels, plan.publish_rate, plan.size, plan.seconds, total, run)
        publishing = self._publishing = Publishing(load, plan.urls, plan.api_key)
        async with Crew(_shares(plan, processes, channels, run)) as crew:
            crew.heard = self._watcher.moved
            await self._connect_and_publish(crew, publishing)
            self._watcher.phase("hearing the last", crew, publishing)
            results = await crew.finish(publishing.tops, plan.grace_seconds)
            return _report(plan, crew, publishing, results)

    async def _connect_and_publish(self, crew: Crew, publishing: Publishing) -> None:
        plan = self._plan
        self._watcher.phase("connecting", crew, publishing)
        patience = SETTLE_SECONDS + (plan.connections / plan.rate if plan.rate else plan.connections / 500)
        await self._until_stopped(crew.settle(patience))
        if self._stopped.is_set():
            return
        await crew.begin(BEGIN_SECONDS)
        if plan.publish_rate:
            self._watcher.phase("publishing", crew, publishing)
            await publishing.run()
        else:
            self._watcher.phase("holding", crew, publishing)
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
    """Name the channels: in the namespace ``load`` where the server has one, unless a prefix is given."""
    prefix = plan.channel_prefix
    async with AsyncPublisher(plan.urls[0], plan.api_key) as publisher:
        try:
            await publisher.history(f"{prefix or 'load:'}0", limit=0)
            prefix = prefix or "load:"
        except CallError as error:
            if error.code == NOT_AVAILABLE:  # the channel exists, and keeps no log
                prefix = prefix or "load:"
            elif error.code == UNKNOWN_CHANNEL and not prefix:
                prefix = "load-"
            else:
                raise
    return [f"{prefix}{number}" for number in range(plan.channels)]


def _shares(plan: Plan, processes: int, channels: list[str], run: str) -> list[Share]:
    """Divide the connections; the first ones get one more where that does not come out even."""
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


def _report(plan: Plan, crew: Crew, publishing: Publishing, results: list[Result]) -> Report:
    report = Report(
        connections=plan.connections,
        connected=sum(len(result.accounts) for result in results),
        connect_seconds=crew.connect_seconds,
        lost_connections=crew.lost_connections,
        still_away=sum(not one.is_connected for result in results for one in result.accounts),
        sent=publishing.sent,
        acknowledged=publishing.total,
        publish_seconds=publishing.seconds,
        delivered=sum(one.total for result in results for one in result.seconds.values()),
        foreign=sum(result.foreign for result in results),
        dead_workers=crew.died,
        verdict=judge((one for result in results for one in result.accounts), publishing.acknowledged),
        connect_failures=dict(sum((Counter(result.failures) for result in results), Counter[str]())),
        publish_failures=dict(publishing.failures),
    )
    for result in results:
        report.returns.merge(result.returns)
        for second, latency in result.seconds.items():
            report.add_second(second, latency)
    return report
