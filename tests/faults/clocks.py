"""Wall clocks that jump: libfaketime, preloaded into Redis and into a node, reads from a file by how much."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from tests.faults.cluster import CONFIG, NAMESPACE, Cluster, Member, folder, started
from tests.faults.fault_environment import Fault, Setting, Stage
from tests.faults.standalone import EVERYTHING
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.api import NO_TLS
from tests.support.configs import PERMIT, Table
from tests.support.timing import STARTED, TICK
from tests.support.tokens import SECRET, connection_token, seconds_from_now
from tocsin import Client, Left, Subscribed, api

HOUR = 3600
PRESENT = "present:here"
VISITORS = 9
TOKEN_SECONDS = 1800
"""By a clock that jumped a visitor's token has expired; its connection was promised this long, and lasts."""
LEASE_SECONDS = 4.0
"""As long as a lease that nobody renews takes to lapse."""

LIBRARY = "/usr/$LIB/faketime/libfaketimeMT.so.1"
MALLOC = "libc_malloc_debug.so.0"
"""Of libc itself. Debian's Redis has jemalloc, which asks for the time before libfaketime can answer."""


class Clock:
    """A clock that processes started with `environment` have, as far off as it is told to be."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump(0)

    def environment(self, *libraries: str) -> dict[str, str]:
        """What a process has to be started with, besides `libraries` that it needs."""
        return {
            "LD_PRELOAD": ":".join([*libraries, LIBRARY]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, seconds: int) -> None:
        """Be so many seconds ahead of the real time, within a second from now."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self._file)


class Clocked(Cluster):
    """The first member and Redis have clocks of their own; whoever connects needs a token."""

    def __init__(self, directory: Path, redis: RedisServer, redis_clock: Clock, node_clock: Clock) -> None:
        self._redis = redis
        self.redis_clock = redis_clock
        self.node_clock = node_clock
        config = _config(redis.url)
        environments = [node_clock.environment(), {}, {}]
        super().__init__(
            [Member(directory / f"node-{at}", config, each) for at, each in enumerate(environments)]
        )

    async def redis_time(self) -> float:
        """What Redis takes the time to be."""
        seconds, _ = await asyncio.to_thread(self._redis.client.time)
        return float(seconds)

    async def node_time(self) -> float:
        """What the first member takes the time to be."""
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http:
            answer = await http.get(f"{self.members[0].url}/health/live")
        return parsedate_to_datetime(answer.headers["date"]).timestamp()


def _config(redis_url: str) -> Table:
    present: Table = {**PERMIT, "presence": True, "join_leave": True, "force_push_join_leave": True}
    return {
        **CONFIG,
        "client": {"allow_anonymous": True, "token_hmac_secret": SECRET, "queue_limit_bytes": 262_144},
        "namespaces": {
            NAMESPACE: {**CONFIG["namespaces"][NAMESPACE], **PERMIT},
            PRESENT.partition(":")[0]: present,
        },
        "engine": {"url": redis_url, "prefix": "faults"},
    }


class Visitors:
    """Connections, on every node some, that everybody sees in a channel."""

    def __init__(self, cluster: Clocked) -> None:
        self._cluster = cluster
        self._arrivals = 0
        self._leaves = 0
        self._changed = asyncio.Event()

    async def visit(self, number: int) -> None:
        """Stay until cancelled."""
        member = self._cluster.members[number % len(self._cluster.members)]
        token = connection_token(f"visitor-{number}", exp=seconds_from_now(TOKEN_SECONDS))
        async with Client(member.url, token=token) as client:
            async for event in client.subscribe(PRESENT).events():
                self._arrivals += isinstance(event, Subscribed)
                self._leaves += isinstance(event, Left)
                self._changed.set()

    async def all_inside(self) -> None:
        """Wait until everybody is there."""
        async with asyncio.timeout(STARTED):
            while self._arrivals < VISITORS:
                self._changed.clear()
                await self._changed.wait()

    async def complain(self, stage: Stage[Clocked]) -> None:
        """Note down what is not as it should be: all are present, and nobody was away meanwhile."""
        presence = await stage.publishing.ask(api.presence(PRESENT))
        if len(presence) != VISITORS or self._leaves or self._arrivals != VISITORS:
            again = self._arrivals - VISITORS
            stage.record.remark(f"{len(presence)} are present, {again} came again, {self._leaves} leaves")


async def jump(stage: Stage[Clocked]) -> None:
    """Redis and a node have clocks that jump by hours, against each other, and then are right again."""
    cluster = stage.cluster
    visitors = Visitors(cluster)
    visits = [asyncio.create_task(visitors.visit(number)) for number in range(VISITORS)]
    try:
        await visitors.all_inside()
        for hours in (1, -1, 0):
            cluster.node_clock.jump(hours * HOUR)
            cluster.redis_clock.jump(-hours * HOUR)
            await _shown(cluster.node_time, hours * HOUR)
            await _shown(cluster.redis_time, -hours * HOUR)
            await asyncio.sleep(LEASE_SECONDS)
            await visitors.complain(stage)
    finally:
        for visit in visits:
            visit.cancel()
        await asyncio.gather(*visits, return_exceptions=True)


async def _shown(read: Callable[[], Awaitable[float]], ahead: int) -> None:
    async with asyncio.timeout(STARTED):
        while abs(await read() - time.time() - ahead) > HOUR / 2:  # noqa: ASYNC110 - clocks have to be read
            await asyncio.sleep(TICK)


@contextlib.asynccontextmanager
async def clocked(directory: Path) -> AsyncIterator[Clocked]:
    """Start Redis, then the members."""
    redis_clock, node_clock = Clock(directory / "redis-clock"), Clock(directory / "node-clock")
    environment = redis_clock.environment(MALLOC)
    with redis_running(folder(directory, "redis"), *EVERYTHING, environment=environment) as redis:
        async with started(Clocked(directory, redis, redis_clock, node_clock)) as cluster:
            yield cluster


WITH_CLOCKS = Setting(clocked, brief=[Fault("clocks that jump by hours", jump, lets_publish=True)])
