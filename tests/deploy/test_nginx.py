"""Two nodes behind nginx with the repository's configuration. Restarts and kills lose nothing."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.nginx import HOST, run_nginx
from tests.faults.cluster import Cluster, NodeProcess, run_cluster
from tests.faults.record import Record, SubscriptionRecord
from tests.faults.subscribers import BareWebSocket, by_client, by_event_stream
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.support.api import NO_TLS
from tests.support.configs import API_KEY
from tests.support.timing import STARTED, TICK
from tocsin import AsyncPublisher, Position, TocsinError

NAMESPACE = "behind"
CHANNELS = [f"{NAMESPACE}:{number}" for number in range(4)]
CONFIG: Mapping[str, Any] = {
    "server": {"drain_seconds": 1},
    "client": {"insecure": True},
    "api": {"keys": [API_KEY]},
    "namespaces": {NAMESPACE: {"history_size": 20_000, "history_ttl": "1h", "force_recovery": True}},
}
SUBSCRIBERS = 30
PUBLISHERS = 5


class Site:
    """The nodes behind one nginx, their subscribers and publishers."""

    def __init__(self, url: str, nodes: Sequence[NodeProcess], errors: Path) -> None:
        self.url = url
        self.nodes = nodes
        self.errors = errors
        self.record = Record()
        self.subscriptions: list[SubscriptionRecord] = []
        self.refusals = 0
        self._numbers = itertools.count(1)
        self._publisher = AsyncPublisher(url, API_KEY)

    async def publish(self, channel: str) -> Position:
        """Publish through nginx, as a back end does. A request without success is repeated."""
        number = next(self._numbers)
        async with asyncio.timeout(STARTED):
            while True:
                try:
                    position = await self._publisher.publish(
                        channel, {"n": number}, idempotency_key=str(number)
                    )
                    break
                except TocsinError:
                    self.refusals += 1
                    await asyncio.sleep(TICK)
        assert position is not None
        self.record.acknowledge(channel, position, number)
        return position

    async def publish_repeatedly(self) -> None:
        while True:
            await self.publish(random.choice(CHANNELS))
            await asyncio.sleep(TICK)

    async def wait_until_received(self) -> None:
        """Wait until every subscriber has everything that was published before this call."""
        goals = {channel: await self.publish(channel) for channel in CHANNELS}
        reached = asyncio.Semaphore(0)
        for subscription in self.subscriptions:
            subscription.call_when_reached(goals[subscription.channel], reached.release)
        async with asyncio.timeout(STARTED):
            for _ in self.subscriptions:
                await reached.acquire()

    async def close(self) -> None:
        await self._publisher.close()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def site(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Site]:
    """Two nodes behind nginx, subscribers of three kinds, and publishers at work."""
    front, *ports = free_ports(3)
    config = {**CONFIG, "engine": {"url": redis.url}}
    cluster = Cluster([NodeProcess(tmp_path / f"node-{port}", config, port=port) for port in ports])
    async with run_cluster(cluster):
        with run_nginx(ports, front, tmp_path) as errors:
            site = Site(f"http://{HOST}:{front}", cluster.nodes, errors)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(work) for work in _workload(site)]
                await site.wait_until_received()
                yield site
                for task in running:
                    task.cancel()
            await site.close()


def _workload(site: Site) -> Iterator[Any]:
    kinds = itertools.cycle((by_client, by_event_stream, BareWebSocket().subscribe))
    for number, kind in zip(range(SUBSCRIBERS), kinds, strict=False):
        subscriptions = [
            SubscriptionRecord(site.record, CHANNELS[number % len(CHANNELS)], f"{kind} {number}")
        ]
        site.subscriptions += subscriptions
        yield kind(site.url, subscriptions)
    for _ in range(PUBLISHERS):
        yield site.publish_repeatedly()


async def test_subscribers_miss_nothing_while_each_node_drains_and_restarts(site: Site) -> None:
    """This holds for WebSockets and event streams. No publication is refused."""
    for node in site.nodes:
        await node.stop()
        await site.wait_until_received()
        await node.start()
        await site.wait_until_received()
    tally = site.record.tally
    assert tally.is_clean, site.record.remarks
    assert (tally.gaps, site.refusals) == (0, 0), site.errors.read_text()


async def test_subscribers_miss_nothing_when_a_node_is_killed(site: Site) -> None:
    """Requests in flight get 502. Repeated with their idempotency key, they are stored once."""
    killed = site.nodes[0]
    await killed.kill()
    await site.wait_until_received()
    await killed.start()
    await site.wait_until_received()
    assert site.record.tally.is_clean, site.record.remarks
    assert site.record.tally.gaps == 0


async def test_internal_paths_are_not_reachable_through_nginx(site: Site) -> None:
    """Health checks and metrics are requested from the nodes directly."""
    async with httpx.AsyncClient(base_url=site.url, trust_env=False, verify=NO_TLS) as http:
        for path in ("/health/ready", "/health/live", "/metrics", "/"):
            assert (await http.get(path)).status_code == 404
        assert (await http.post("/api/info", json={})).status_code == 401
