"""Wall clocks that jump: libfaketime, preloaded into Redis and a node, reads the shift from a file."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx

from tests.faults.cluster import CONFIG, NAMESPACE, Cluster, NodeProcess, make_folder, run_cluster
from tests.faults.fault_environment import Fault, FaultEnvironment, FaultGroup
from tests.faults.standalone import DURABLE
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.api import NO_TLS
from tests.support.configs import PERMIT_ALL, Table
from tests.support.timing import STARTED, TICK
from tests.support.tokens import SECRET, connection_token, seconds_from_now
from tocsin import Client, Left, Subscribed, api

HOUR = 3600
PRESENCE_CHANNEL = "present:here"
PRESENT_CLIENTS = 9
TOKEN_SECONDS = 1800
"""Lifetime of tokens. A shifted clock makes them expired; connections keep the lifetime they were given."""
LEASE_SECONDS = 4.0
"""A lease that is not renewed expires within this time."""

LIBRARY = "/usr/$LIB/faketime/libfaketimeMT.so.1"
MALLOC = "libc_malloc_debug.so.0"
"""A library of libc. Debian's Redis uses jemalloc, which reads the time before libfaketime is initialised."""


class Clock:
    """The wall clock of processes started with its `environment`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.shift(0)

    def environment(self, *libraries: str) -> dict[str, str]:
        """Environment variables for such a process, with further libraries to preload."""
        return {
            "LD_PRELOAD": ":".join([*libraries, LIBRARY]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def shift(self, seconds: int) -> None:
        """Set the clock to so many seconds ahead of the real time. It takes effect within a second."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}")
        new.replace(self._file)


class ShiftedClockCluster(Cluster):
    """Three nodes. The first one and Redis have clocks that can be shifted. Clients need a token."""

    def __init__(self, directory: Path, redis: RedisServer, redis_clock: Clock, node_clock: Clock) -> None:
        self._redis = redis
        self.redis_clock = redis_clock
        self.node_clock = node_clock
        config = _config(redis.url)
        environments = [node_clock.environment(), {}, {}]
        super().__init__(
            [NodeProcess(directory / f"node-{at}", config, each) for at, each in enumerate(environments)]
        )

    async def redis_time(self) -> float:
        """The wall clock of Redis, in unix seconds."""
        seconds, _ = await asyncio.to_thread(self._redis.client.time)
        return float(seconds)

    async def node_time(self) -> float:
        """The wall clock of the first node, in unix seconds."""
        async with httpx.AsyncClient(trust_env=False, verify=NO_TLS) as http:
            response = await http.get(f"{self.nodes[0].url}/health/live")
        return parsedate_to_datetime(response.headers["date"]).timestamp()


def _config(redis_url: str) -> Table:
    present: Table = {**PERMIT_ALL, "presence": True, "join_leave": True, "force_push_join_leave": True}
    return {
        **CONFIG,
        "client": {"allow_anonymous": True, "token_hmac_secret": SECRET, "queue_limit_bytes": 262_144},
        "namespaces": {
            NAMESPACE: {**CONFIG["namespaces"][NAMESPACE], **PERMIT_ALL},
            PRESENCE_CHANNEL.partition(":")[0]: present,
        },
        "engine": {"url": redis_url, "prefix": "faults"},
    }


class PresentClients:
    """Clients on all nodes that are present in one channel.

    The mutable state is the number of subscribe replies and of leaves that they received.
    """

    def __init__(self, cluster: ShiftedClockCluster) -> None:
        self._cluster = cluster
        self._subscribed = 0
        self._leaves = 0
        self._changed = asyncio.Event()

    async def stay(self, number: int) -> None:
        """Be present until cancelled."""
        node = self._cluster.nodes[number % len(self._cluster.nodes)]
        token = connection_token(f"client-{number}", exp=seconds_from_now(TOKEN_SECONDS))
        async with Client(node.url, token=token) as client:
            async for event in client.subscribe(PRESENCE_CHANNEL).events():
                self._subscribed += isinstance(event, Subscribed)
                self._leaves += isinstance(event, Left)
                self._changed.set()

    async def wait_until_present(self) -> None:
        """Wait until all clients are subscribed."""
        async with asyncio.timeout(STARTED):
            while self._subscribed < PRESENT_CLIENTS:
                self._changed.clear()
                await self._changed.wait()

    async def check(self, environment: FaultEnvironment[ShiftedClockCluster]) -> None:
        """Add a remark unless all clients are present and none has been away."""
        presence = await environment.publishers.call(api.presence(PRESENCE_CHANNEL))
        if len(presence) != PRESENT_CLIENTS or self._leaves or self._subscribed != PRESENT_CLIENTS:
            again = self._subscribed - PRESENT_CLIENTS
            environment.record.remark(
                f"{len(presence)} clients are present, {again} subscribed again, {self._leaves} leaves"
            )


async def shift_clocks(environment: FaultEnvironment[ShiftedClockCluster]) -> None:
    """The clocks of Redis and of a node jump by hours in opposite directions, and back."""
    cluster = environment.cluster
    clients = PresentClients(cluster)
    stays = [asyncio.create_task(clients.stay(number)) for number in range(PRESENT_CLIENTS)]
    try:
        await clients.wait_until_present()
        for hours in (1, -1, 0):
            cluster.node_clock.shift(hours * HOUR)
            cluster.redis_clock.shift(-hours * HOUR)
            await _wait_for_shift(cluster.node_time, hours * HOUR)
            await _wait_for_shift(cluster.redis_time, -hours * HOUR)
            await asyncio.sleep(LEASE_SECONDS)
            await clients.check(environment)
    finally:
        for stay in stays:
            stay.cancel()
        await asyncio.gather(*stays, return_exceptions=True)


async def _wait_for_shift(read: Callable[[], Awaitable[float]], ahead: int) -> None:
    async with asyncio.timeout(STARTED):
        while abs(await read() - time.time() - ahead) > HOUR / 2:  # noqa: ASYNC110 - clocks have to be polled
            await asyncio.sleep(TICK)


@contextlib.asynccontextmanager
async def shifted_clock_cluster(directory: Path) -> AsyncIterator[ShiftedClockCluster]:
    """Start Redis, then the nodes."""
    redis_clock, node_clock = Clock(directory / "redis-clock"), Clock(directory / "node-clock")
    environment = redis_clock.environment(MALLOC)
    with redis_running(make_folder(directory, "redis"), *DURABLE, environment=environment) as redis:
        async with run_cluster(ShiftedClockCluster(directory, redis, redis_clock, node_clock)) as cluster:
            yield cluster


CLOCK_FAULTS = FaultGroup(
    shifted_clock_cluster, quick=[Fault("clocks that jump by hours", shift_clocks, allows_publishing=True)]
)
