"""Thousands of clients that reconnect at once: their node is killed, or Redis restarts.

The clients are those of `tocsin load`, in processes of their own. Its report accounts for every delivery.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.faults.cluster import NAMESPACE, Cluster, NodeProcess, config_with_engine, make_folder
from tests.faults.standalone import DURABLE
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.support.api import NO_TLS
from tests.support.configs import API_KEY
from tests.support.tcp import HOST
from tests.support.timing import SOON, STARTED, TICK, progress_timeout
from tocsin_load.histogram import format_duration
from tocsin_load.limits import raise_file_limit
from tocsin_load.rate_publisher import RatePublisher
from tocsin_load.report import Report
from tocsin_load.run import Plan, Run
from tocsin_load.worker_pool import WorkerPool

SURVIVORS_CLIENTS = 100
"""Clients that the surviving nodes have before the clients of the killed node reconnect."""
AROUND_SECONDS = 2.0
"""How long clients receive before and after the fault."""


@dataclass(frozen=True)
class Result:
    """The result of one run: facts to print, and sentences about broken promises."""

    name: str
    facts: list[str]
    violations: list[str] = field(default_factory=list)


class LoadClients:
    """A run of the load tool that lasts until `report` is called.

    The mutable state is the run's latest phase, which its callbacks set.
    """

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
        self._workers: WorkerPool | None = None
        self._is_publishing = False
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run.run())

    def show_phase(self, name: str, workers: WorkerPool, publisher: RatePublisher) -> None:
        """Called by the run when a phase begins."""
        self._workers, self._is_publishing = workers, name == "publishing"
        self._changed.set()

    def update(self) -> None:
        """Called by the run when its counts may have changed."""
        self._changed.set()

    async def wait_until_connected(self) -> None:
        """Wait until all clients are subscribed and publishing has begun."""
        await self._until(lambda workers: self._is_publishing and workers.subscribed == self._connections)

    async def wait_until_reconnected(self) -> None:
        """Wait until a client has lost its connection, and then until all clients are subscribed again."""
        await self._until(lambda workers: workers.lost_connections > 0)
        await self._until(lambda workers: workers.subscribed == self._connections)

    async def _until(self, condition: Callable[[WorkerPool], bool]) -> None:
        async with progress_timeout(self._counts, STARTED):
            while self._workers is None or not condition(self._workers):
                self._changed.clear()
                await self._changed.wait()
                if self._task.done():
                    self._task.result()

    def _counts(self) -> tuple[int, int]:
        return (self._workers.subscribed, self._workers.lost_connections) if self._workers else (0, 0)

    async def report(self) -> Report:
        """End the run once all clients have received everything."""
        self._run.stop()
        return await self._task

    def violations(self, report: Report) -> list[str]:
        """The promises that hold in every run, and that this one broke."""
        deliveries = report.deliveries
        counts = {
            "lost": deliveries.lost,
            "duplicated": deliveries.duplicated,
            "reordered": deliveries.reordered,
            "gaps": deliveries.in_gaps,
            "clients not reconnected": report.still_disconnected,
            "clients never connected": self._connections - report.connected,
            "processes of the load tool died": report.dead_workers,
        }
        return [f"{count:,} {name}" for name, count in counts.items() if count]


class ReadinessChecks:
    """Repeated readiness checks of nodes. Every check must be answered with 200 within `seconds`.

    The mutable state is the counts and `violations`; only the checks change it.
    """

    def __init__(self, urls: Sequence[str], seconds: float = SOON) -> None:
        self._urls = urls
        self._seconds = seconds
        self._is_over = False
        self.count = 0
        self.ready_count = 0
        self.slowest_seconds = 0.0
        self.violations: list[str] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Check until the block ends. Checks in flight are still awaited then, to detect a hanging node."""
        async with httpx.AsyncClient(timeout=None, trust_env=False, verify=NO_TLS) as http:
            tasks = [asyncio.create_task(self._check_repeatedly(url, http)) for url in self._urls]
            try:
                yield
            finally:
                self._is_over = True
                for error in await asyncio.gather(*tasks, return_exceptions=True):
                    if error is not None:
                        self.violations.append(f"readiness checks stopped: {error!r}")

    async def _check_repeatedly(self, url: str, http: httpx.AsyncClient) -> None:
        await self._check(url, http)
        while not self._is_over:
            await asyncio.sleep(TICK)
            await self._check(url, http)

    async def _check(self, url: str, http: httpx.AsyncClient) -> None:
        began = time.monotonic()
        self.count += 1
        try:
            async with asyncio.timeout(self._seconds):
                response = await http.get(f"{url}/health/ready")
        except (httpx.TransportError, TimeoutError) as error:
            self.violations.append(f"{url} did not answer a readiness check: {error!r}")
            return
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        if response.status_code == 200:
            self.ready_count += 1
        else:
            self.violations.append(response.text)


class FixedPortCluster(Cluster):
    """Three nodes whose ports are known before they start."""

    def __init__(self, directory: Path, redis: RedisServer) -> None:
        self.redis = redis
        ports = free_ports(3)
        self.urls = [f"http://{HOST}:{port}" for port in ports]
        config = config_with_engine(redis.url)
        super().__init__(
            [NodeProcess(directory / f"node-{at}", config, port=port) for at, port in enumerate(ports)]
        )


@contextlib.asynccontextmanager
async def fixed_port_cluster(directory: Path) -> AsyncIterator[FixedPortCluster]:
    """Start Redis and the first node. The other nodes are started by the scenarios."""
    raise_file_limit()
    with redis_running(make_folder(directory, "redis"), *DURABLE) as redis:
        cluster = FixedPortCluster(directory, redis)
        try:
            await cluster.nodes[0].start()
            yield cluster
        finally:
            await asyncio.gather(*(node.stop() for node in cluster.nodes))


async def kill_node(cluster: FixedPortCluster, clients: int, seconds: float = AROUND_SECONDS) -> Result:
    """All clients are at the only node. Two further nodes start, and the first one is killed."""
    first, *survivors = cluster.nodes
    reconnecting = LoadClients("reconnecting", cluster.urls, clients, rate=20, transport="websocket")
    await reconnecting.wait_until_connected()
    await asyncio.gather(*(node.start() for node in survivors))
    staying = LoadClients("staying", cluster.urls[1:], SURVIVORS_CLIENTS, rate=20, transport="websocket")
    await staying.wait_until_connected()
    readiness = ReadinessChecks([node.url for node in survivors])
    async with readiness.running():
        await asyncio.sleep(seconds)
        await first.kill()
        await reconnecting.wait_until_reconnected()
        await asyncio.sleep(seconds)
    reports = await reconnecting.report(), await staying.report()
    await first.start()
    violations = [
        *reconnecting.violations(reports[0]),
        *staying.violations(reports[1]),
        *readiness.violations,
    ]
    return _kill_result(clients, *reports, readiness, violations)


def _kill_result(
    clients: int,
    reconnecting: Report,
    staying: Report,
    readiness: ReadinessChecks,
    violations: list[str],
) -> Result:
    returns, latency = reconnecting.reconnects, staying.latency
    if staying.lost_connections:
        violations.append(f"{staying.lost_connections} connections of survivors ended")
    if latency.longest > returns.longest:  # a client that stayed must not wait longer than one that returned
        violations.append(f"a survivor's client waited for {format_duration(latency.longest)}")
    return Result(
        f"{clients:,} clients of a killed node",
        [
            (
                f"{reconnecting.lost_connections:,} lost their connection; reconnected after "
                f"p50 {format_duration(returns.quantile(0.5))}, at most {format_duration(returns.longest)}"
            ),
            (
                f"{reconnecting.deliveries.expected:,} deliveries expected of {reconnecting.acknowledged:,} "
                "acknowledged publications"
            ),
            (
                f"survivors ready in {readiness.ready_count} of {readiness.count} "
                f"checks, which took at most {format_duration(readiness.slowest_seconds)}"
            ),
            (
                f"the survivors' {SURVIVORS_CLIENTS} clients: p50 {format_duration(latency.quantile(0.5))}, "
                f"p99 {format_duration(latency.quantile(0.99))}, at most {format_duration(latency.longest)}"
            ),
        ],
        violations,
    )


async def restart_redis(cluster: FixedPortCluster, clients: int, seconds: float = AROUND_SECONDS) -> Result:
    """Redis is killed and restarted. All nodes have clients over WebSockets and event streams."""
    for node in cluster.nodes:
        if node.server is None:
            await node.start()
    load = LoadClients("restart", cluster.urls, clients, rate=20, transport="mix")
    await load.wait_until_connected()
    watching = asyncio.create_task(cluster.watch())
    await cluster.wait_until_ready()
    await asyncio.sleep(seconds)
    await asyncio.to_thread(cluster.redis.stop)
    await cluster.wait_until_not_ready(*cluster.nodes)
    await asyncio.to_thread(cluster.redis.start)
    began = time.monotonic()
    await cluster.wait_until_ready()
    recovered = time.monotonic() - began
    await asyncio.sleep(seconds)
    watching.cancel()
    report = await load.report()
    violations = load.violations(report)
    if report.lost_connections:
        violations.append(f"{report.lost_connections:,} connections ended")
    return Result(
        f"{clients:,} connections, and Redis restarts",
        [
            f"{report.lost_connections:,} ended; all nodes ready again after {format_duration(recovered)}",
            (
                f"{report.deliveries.expected:,} deliveries expected of {report.acknowledged:,} acknowledged "
                f"publications ({report.sent - report.acknowledged:,} further ones were refused)"
            ),
        ],
        violations,
    )
