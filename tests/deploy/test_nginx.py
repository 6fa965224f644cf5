"""Two nodes behind the nginx that the repository configures, with clients, publishers and restarts."""

import asyncio
import contextlib
import itertools
import random
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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


class Place:
    """A node that may be stopped, killed and started again, at the same port."""

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
        """SIGTERM; it must end well."""
        self._running.close()

    def kill(self) -> None:
        assert self._server is not None
        self._running.pop_all()
        self._server.process.send_signal(signal.SIGKILL)
        self._server.stop()


class Site:
    """What there is behind one address."""

    def __init__(self, url: str, places: Sequence[Place], errors: Path) -> None:
        self.url = url
        self.places = places
        self.errors = errors
        self.record = Record()
        self.journals: list[Journal] = []
        self.refusals = 0
        self._numbers = itertools.count(1)
        self._publisher = AsyncPublisher(url, API_KEY)

    async def publish(self, channel: str) -> Position:
        """Through nginx, as a back end does: what is not answered with success is repeated."""
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

    async def publish_for_ever(self) -> None:
        while True:
            await self.publish(random.choice(CHANNELS))
            await asyncio.sleep(TICK)

    async def everybody_has_everything(self) -> None:
        """Wait until every subscriber has what was published until now."""
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


@pytest.fixture
async def site(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Site]:
    """Two nodes behind nginx, subscribers of three kinds, and publishers at work."""
    front, *ports = free_ports(3)
    places = [Place(tmp_path / f"node-{port}", redis.url, port) for port in ports]
    try:
        await asyncio.gather(*(asyncio.to_thread(place.start) for place in places))
        with nginx_before(ports, front, tmp_path) as errors:
            site = Site(f"http://{HOST}:{front}", places, errors)
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(work) for work in _at_work(site)]
                await site.everybody_has_everything()
                yield site
                for task in running:
                    task.cancel()
            await site.close()
    finally:
        for place in places:
            place.stop()


def _at_work(site: Site) -> Iterator[Any]:
    kinds = itertools.cycle((by_client, by_event_stream, Wire().subscribe))
    for number, kind in zip(range(SUBSCRIBERS), kinds, strict=False):
        journals = [Journal(site.record, CHANNELS[number % len(CHANNELS)], f"{kind} {number}")]
        site.journals += journals
        yield kind(site.url, journals)
    for _ in range(PUBLISHERS):
        yield site.publish_for_ever()


async def test_each_node_drains_and_restarts_under_load_and_nobody_misses_anything(site: Site) -> None:
    """Neither WebSockets nor event streams, and no publication is refused."""
    for place in site.places:
        await asyncio.to_thread(place.stop)
        await site.everybody_has_everything()
        await asyncio.to_thread(place.start)
        await site.everybody_has_everything()
    tally = site.record.tally
    assert tally.is_clean, site.record.remarks
    assert (tally.told, site.refusals) == (0, 0), site.errors.read_text()


async def test_a_node_is_killed_under_load_and_nobody_misses_anything(site: Site) -> None:
    """A request that was with it is answered 502; repeated with its idempotency key, it is stored once."""
    victim = site.places[0]
    await asyncio.to_thread(victim.kill)
    await site.everybody_has_everything()
    await asyncio.to_thread(victim.start)
    await site.everybody_has_everything()
    assert site.record.tally.is_clean, site.record.remarks
    assert site.record.tally.told == 0


async def test_what_is_for_the_inside_stays_inside(site: Site) -> None:
    """Health and metrics are asked of the nodes themselves."""
    async with httpx.AsyncClient(base_url=site.url, trust_env=False, verify=NO_TLS) as http:
        for path in ("/health/ready", "/health/live", "/metrics", "/"):
            assert (await http.get(path)).status_code == 404
        assert (await http.post("/api/info", json={})).status_code == 401
