"""Two nodes behind the nginx that the repository configures, with clients, publishers and restarts."""

import asyncio
import contextlib
import itertools
import random
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.deploy.nginx import HOST, nginx_before
from tests.faults.record import Journal, Record
from tests.faults.subscribers import Wire, by_client, by_event_stream
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.support.api import NO_TLS
from tests.support.configs import API_KEY
from tests.support.server import Server, serving
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


class ManagedNode:
    """A node that tests stop, kill and start again on the same port."""

    def __init__(self, directory: Path, redis_url: str, port: int) -> None:
        directory.mkdir()
        self.port = port
        self._directory = directory
        self._config = {**CONFIG, "engine": {"url": redis_url}}
        self._running = contextlib.ExitStack()
        self._server: Server | None = None

    def start(self) -> None:
        self._server = self._running.enter_context(
            serving(self._config, self._directory, "--port", str(self.port))
        )

    def stop(self) -> None:
        """Stop it with SIGTERM. It must exit with 0."""
        self._running.close()

    def kill(self) -> None:
        assert self._server is not None
        self._running.pop_all()
        self._server.process.send_signal(signal.SIGKILL)
        self._server.stop()


class Front(NamedTuple):
    """The URL of nginx, the nodes behind it, and the file with nginx's errors."""

    url: str
    nodes: Sequence[ManagedNode]
    errors: Path


class Site:
    """Nodes behind one address, with the subscribers and publishers of a test."""

    def __init__(self, url: str, nodes: Sequence[ManagedNode], errors: Path) -> None:
        self.url = url
        self.nodes = nodes
        self.errors = errors
        self.record = Record()
        self.journals: list[Journal] = []
        self.refusals = 0
        self._numbers = itertools.count(1)
        self._publisher = AsyncPublisher(url, API_KEY)

    async def publish(self, channel: str) -> Position:
        """Publish through nginx, and repeat a call that fails, as a back end does."""
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

    async def until_all_is_received(self) -> None:
        """Wait until every subscriber has received all publications so far."""
        goals = {channel: await self.publish(channel) for channel in CHANNELS}
        arrived = asyncio.Semaphore(0)
        for journal in self.journals:
            journal.call_at(goals[journal.channel], arrived.release)
        async with asyncio.timeout(STARTED):
            for _ in self.journals:
                await arrived.acquire()

    async def close(self) -> None:
        await self._publisher.close()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def front(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Two nodes behind nginx. Each test leaves both of them running."""
    directory = tmp_path_factory.mktemp("front")
    port, *ports = free_ports(3)
    nodes = [ManagedNode(directory / f"node-{port}", redis.url, port) for port in ports]
    try:
        for node in nodes:
            node.start()
        with nginx_before(ports, port, directory) as errors:
            yield Front(f"http://{HOST}:{port}", nodes, errors)
    finally:
        for node in nodes:
            node.stop()


@pytest.fixture
async def site(front: Front) -> AsyncIterator[Site]:
    """The nodes behind nginx, with three kinds of subscribers and with publishers."""
    site = Site(*front)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work) for work in _clients_of(site)]
        await site.until_all_is_received()
        yield site
        for task in running:
            task.cancel()
    await site.close()


def _clients_of(site: Site) -> Iterator[Any]:
    kinds = itertools.cycle((by_client, by_event_stream, Wire().subscribe))
    for number, kind in zip(range(SUBSCRIBERS), kinds, strict=False):
        journals = [Journal(site.record, CHANNELS[number % len(CHANNELS)], f"{kind} {number}")]
        site.journals += journals
        yield kind(site.url, journals)
    for _ in range(PUBLISHERS):
        yield site.publish_repeatedly()


async def test_draining_each_node_under_load_loses_no_publication(site: Site) -> None:
    """This applies to WebSockets and event streams. No publish fails."""
    for node in site.nodes:
        await asyncio.to_thread(node.stop)
        await site.until_all_is_received()
        await asyncio.to_thread(node.start)
        await site.until_all_is_received()
    tally = site.record.tally
    assert tally.is_clean, site.record.remarks
    assert (tally.told, site.refusals) == (0, 0), site.errors.read_text()


async def test_killing_a_node_under_load_loses_no_publication(site: Site) -> None:
    """An open request fails with 502. Repeated with its idempotency key, it is stored once."""
    killed = site.nodes[0]
    await asyncio.to_thread(killed.kill)
    await site.until_all_is_received()
    await asyncio.to_thread(killed.start)
    await site.until_all_is_received()
    assert site.record.tally.is_clean, site.record.remarks
    assert site.record.tally.told == 0


async def test_nginx_does_not_expose_health_and_metrics(front: Front) -> None:
    """Monitoring requests them from the nodes directly."""
    async with httpx.AsyncClient(base_url=front.url, trust_env=False, verify=NO_TLS) as http:
        for path in ("/health/ready", "/health/live", "/metrics", "/"):
            assert (await http.get(path)).status_code == 404
        assert (await http.post("/api/info", json={})).status_code == 401
