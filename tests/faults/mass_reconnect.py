"""Many at once: a node with thousands of clients dies, and a Redis restarts under thousands of connections.

The clients are those of the load script, in processes of their own; its report says what each of them heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.cluster import NAMESPACE, Cluster, Member, engine, folder
from tests.faults.standalone import EVERYTHING
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.support.api import NO_TLS
from tests.support.configs import API_KEY
from tests.support.proxies import HOST
from tests.support.timing import SOON, STARTED, TICK
from tocsin_load.histogram import format_duration
from tocsin_load.limits import raise_file_limit
from tocsin_load.rate_publisher import RatePublisher
from tocsin_load.report import Report
from tocsin_load.run import Plan, Run
from tocsin_load.worker_pool import WorkerPool

WITNESSES = 100
"""Clients that the survivors had before the others came."""
AROUND_SECONDS = 2.0
"""How long everybody listens before and after what happens."""


@dataclass(frozen=True)
class Account:
    """What became of it: `facts` for whoever reads it, `complaints` about what is not as promised."""

    name: str
    facts: list[str]
    complaints: list[str] = field(default_factory=list)


class Crowd:
    """A run of the load script that lasts until it is told to end."""

    def __init__(self, name: str, urls: list[str], connections: int, rate: float, transport: str) -> None:
        self._connections = connections
        self._run = Run(
            Plan(
                urls=urls,
                connections=connections,
                transport=transport,
                channels=10,
                channel_prefix=f"{NAMESPACE}:{name}-",
                rate=1000,
                publish_rate=rate,
                size=100,
                seconds=60 * SOON,
                count=0,
                processes=0,
                token="",
                secret="",
                api_key=API_KEY,
                grace_seconds=STARTED,
            ),
            self,
        )
        self._crew: WorkerPool | None = None
        self._is_publishing = False
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run.run())

    def show_phase(self, name: str, crew: WorkerPool, publisher: RatePublisher) -> None:
        """Called when something else begins."""
        self._crew, self._is_publishing = crew, name == "publishing"
        self._news.set()

    def update(self) -> None:
        """Called when the numbers may be new."""
        self._news.set()

    async def here(self) -> None:
        """Wait until all are there, and publications under way."""
        await self._until(lambda crew: self._is_publishing and crew.subscribed == self._connections)

    async def away_and_back(self) -> None:
        """Wait until somebody was away, and then all are back."""
        await self._until(lambda crew: crew.lost_connections > 0)
        await self._until(lambda crew: crew.subscribed == self._connections)

    async def _until(self, condition: Callable[[WorkerPool], bool]) -> None:
        async with asyncio.timeout(6 * SOON):
            while self._crew is None or not condition(self._crew):
                self._news.clear()
                await self._news.wait()
                if self._task.done():
                    self._task.result()

    async def report(self) -> Report:
        """End it, once all have heard everything."""
        self._run.stop()
        return await self._task

    def complain(self, report: Report) -> list[str]:
        """What is not as promised whatever happens: all there, nothing lost, twice or late, no hole."""
        deliveries = report.deliveries
        wrong = {
            "lost": deliveries.lost,
            "duplicated": deliveries.duplicated,
            "reordered": deliveries.reordered,
            "in gaps": deliveries.in_gaps,
            "still disconnected": report.still_disconnected,
            "never connected": self._connections - report.connected,
            "processes died": report.dead_workers,
        }
        return [f"{count:,} {what}" for what, count in wrong.items() if count]


class Readiness:
    """Asks nodes whether they are ready, several times a second. No answer in `seconds` is a complaint."""

    def __init__(self, urls: Sequence[str], seconds: float = SOON) -> None:
        self._urls = urls
        self._seconds = seconds
        self._is_over = False
        self.looks = 0
        self.found_ready = 0
        self.slowest_seconds = 0.0
        self.complaints: list[str] = []

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look meanwhile. At the end all looks get their answers: a node that hangs must not go unseen."""
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=NO_TLS) as http:
            watches = [asyncio.create_task(self._watch(url, http)) for url in self._urls]
            try:
                yield
            finally:
                self._is_over = True
                for death in await asyncio.gather(*watches, return_exceptions=True):
                    if death is not None:
                        self.complaints.append(f"somebody stopped looking: {death!r}")

    async def _watch(self, url: str, http: httpx.AsyncClient) -> None:
        await self._look(url, http)
        while not self._is_over:
            await asyncio.sleep(TICK)
            await self._look(url, http)

    async def _look(self, url: str, http: httpx.AsyncClient) -> None:
        began = time.monotonic()
        self.looks += 1
        try:
            async with asyncio.timeout(self._seconds):
                answer = await http.get(f"{url}/health/ready")
        except (httpx.TransportError, TimeoutError) as error:
            self.complaints.append(f"{url} did not say whether it is ready: {error!r}")
            return
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        if answer.status_code == 200:
            self.found_ready += 1
        else:
            self.complaints.append(answer.text)


class Fold(Cluster):
    """Three nodes at ports that are known before they start."""

    def __init__(self, directory: Path, redis: RedisServer) -> None:
        self.redis = redis
        ports = free_ports(3)
        self.urls = [f"http://{HOST}:{port}" for port in ports]
        config = engine(redis.url)
        super().__init__(
            [Member(directory / f"node-{at}", config, port=port) for at, port in enumerate(ports)]
        )


@contextlib.asynccontextmanager
async def fold(directory: Path) -> AsyncIterator[Fold]:
    """Redis runs, and the first node: the others are started when they are needed."""
    raise_file_limit()
    with redis_running(folder(directory, "redis"), *EVERYTHING) as redis:
        cluster = Fold(directory, redis)
        try:
            await cluster.members[0].start()
            yield cluster
        finally:
            await asyncio.gather(*(member.stop() for member in cluster.members))


async def stampede(cluster: Fold, clients: int, seconds: float = AROUND_SECONDS) -> Account:
    """All clients are at one node since there is no other; two more start, and the first is killed."""
    first, *survivors = cluster.members
    crowd = Crowd("herd", cluster.urls, clients, rate=20, transport="websocket")
    await crowd.here()
    await asyncio.gather(*(member.start() for member in survivors))
    witnesses = Crowd("own", cluster.urls[1:], WITNESSES, rate=20, transport="websocket")
    await witnesses.here()
    readiness = Readiness([member.url for member in survivors])
    async with readiness.watching():
        await asyncio.sleep(seconds)
        await first.kill()
        await crowd.away_and_back()
        await asyncio.sleep(seconds)
    crowds, theirs = await crowd.report(), await witnesses.report()
    await first.start()
    return _herd(clients, crowd, crowds, witnesses, theirs, readiness)


def _herd(
    clients: int, crowd: Crowd, crowds: Report, witnesses: Crowd, theirs: Report, readiness: Readiness
) -> Account:
    returns, latency = crowds.reconnects, theirs.latency
    complaints = [*crowd.complain(crowds), *witnesses.complain(theirs), *readiness.complaints]
    if theirs.lost_connections:
        complaints.append(f"{theirs.lost_connections} connections of survivors ended")
    if latency.longest > returns.longest:  # whoever was not away must not wait as long as who was
        complaints.append(f"a survivor's client waited for {format_duration(latency.longest)}")
    return Account(
        f"{clients:,} clients of a killed node",
        [
            (
                f"{crowds.lost_connections:,} lost their connection; back after "
                f"p50 {format_duration(returns.quantile(0.5))}, at most {format_duration(returns.longest)}"
            ),
            f"{crowds.deliveries.expected:,} deliveries expected of {crowds.acknowledged:,} acknowledged "
            "publications, none lost, twice, late or told" + (", but see below" if complaints else ""),
            (
                f"survivors ready at {readiness.found_ready} of {readiness.looks} "
                f"looks, which took at most {format_duration(readiness.slowest_seconds)}"
            ),
            (
                f"their own {WITNESSES} clients: p50 {format_duration(latency.quantile(0.5))}, "
                f"p99 {format_duration(latency.quantile(0.99))}, at most {format_duration(latency.longest)}"
            ),
        ],
        complaints,
    )


async def restart(cluster: Fold, clients: int, seconds: float = AROUND_SECONDS) -> Account:
    """Redis is killed and comes back, under WebSockets and event streams on every node."""
    for member in cluster.members:
        if member.server is None:
            await member.start()
    crowd = Crowd("wide", cluster.urls, clients, rate=20, transport="mix")
    await crowd.here()
    watching = asyncio.create_task(cluster.watch())
    await cluster.until_ready()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(cluster.redis.stop)
    await cluster.until_not_ready(*cluster.members)
    await asyncio.to_thread(cluster.redis.start)
    began = time.monotonic()
    await cluster.until_ready()
    healed = time.monotonic() - began
    await asyncio.sleep(seconds)
    watching.cancel()
    report = await crowd.report()
    complaints = crowd.complain(report)
    if report.lost_connections:
        complaints.append(f"{report.lost_connections:,} connections ended")
    return Account(
        f"{clients:,} connections, and Redis restarts",
        [
            f"{report.lost_connections:,} ended; all nodes ready again after {format_duration(healed)}",
            (
                f"{report.deliveries.expected:,} deliveries expected of {report.acknowledged:,} acknowledged "
                f"publications ({report.sent - report.acknowledged:,} more were refused)"
            ),
        ],
        complaints,
    )
