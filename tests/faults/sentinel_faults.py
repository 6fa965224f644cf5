"""Failovers behind Sentinel, planned and unplanned: a master, a replica and three Sentinels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import redis

from tests.faults.cluster import Cluster, NodeProcess, config_with_engine, make_folder, run_cluster
from tests.faults.fault_environment import (
    REDIS_DISCONNECTED,
    Fault,
    FaultEnvironment,
    FaultGroup,
    HistoryLoss,
)
from tests.faults.standalone import DURABLE
from tests.server.engine.redis.blackhole_proxy import blackhole_running
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.tcp import HOST
from tests.support.timing import STARTED, TICK

SERVICE = "mymaster"
QUORUM = 2
BEHIND_SECONDS = 0.5
"""For how long a replica receives no writes before its master is killed."""
TILT_MS = 60_000
"""A Sentinel that pauses for longer does nothing for 30 s (TILT mode). The default is 2 s."""

SENTINEL = (
    "sentinel monitor {service} {host} {port} {quorum}",
    "sentinel down-after-milliseconds {service} 1000",
    "sentinel failover-timeout {service} 2000",
)


class SentinelCluster(Cluster):
    """Three nodes that find the master among two servers by three Sentinels."""

    def __init__(
        self, directory: Path, servers: Sequence[RedisServer], sentinels: Sequence[RedisServer]
    ) -> None:
        self._servers = servers
        self._sentinels = sentinels
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in sentinels)
        url = f"redis+sentinel://{hosts}/{SERVICE}"
        super().__init__([NodeProcess(directory / f"node-{at}", config_with_engine(url)) for at in range(3)])

    @property
    def master(self) -> RedisServer:
        """The master according to all Sentinels. Raises StopIteration while they disagree."""
        ports = {int(self._query(sentinel, "GET-MASTER-ADDR-BY-NAME")[1]) for sentinel in self._sentinels}
        return next(server for server in self._servers if ports == {server.port})

    @property
    def replica(self) -> RedisServer:
        """The server that is not the master."""
        master = self.master
        return next(server for server in self._servers if server is not master)

    def _query(self, sentinel: RedisServer, command: str) -> list[bytes]:
        answer: list[bytes] = sentinel.command("SENTINEL", command, SERVICE)
        return answer

    async def settle(self) -> None:
        """Wait until the replica follows the master, and all Sentinels would promote it."""
        for server in self._servers:
            if not server.is_running:
                await asyncio.to_thread(server.start)
        await self.wait_until(lambda: _follow(self.replica, self.master.port))
        await self.wait_until(lambda: all(map(self._has_healthy_replica, self._sentinels)))

    def _has_healthy_replica(self, sentinel: RedisServer) -> bool:
        (state,) = sentinel.client.sentinel_slaves(SERVICE)
        return not (state["is_sdown"] or state["is_disconnected"]) and state["master-link-status"] == "ok"

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Poll until a condition holds. A server that does not reply is polled again."""
        async with asyncio.timeout(STARTED):
            while not await asyncio.to_thread(_holds, condition):  # noqa: ASYNC110 - servers have to be polled
                await asyncio.sleep(TICK)

    async def fail_over(self) -> None:
        """Request a failover from a Sentinel, until it begins."""
        await self.wait_until(lambda: self._sentinels[0].command("SENTINEL", "FAILOVER", SERVICE) == b"OK")


def _holds(condition: Callable[[], bool]) -> bool:
    with contextlib.suppress(redis.RedisError, StopIteration, ValueError):
        return condition()
    return False


def _follow(server: RedisServer, port: int) -> bool:
    """Make a server a replica of the master at this port. True once they are in sync."""
    state = server.client.info("replication")
    if state["role"] == "master" or state["master_port"] != port:
        server.command("REPLICAOF", HOST, port)
    return state.get("master_link_status") == "up"


async def fail_over_as_planned(environment: FaultEnvironment[SentinelCluster]) -> None:
    """The master refuses writes until the replica has all of them. Then the replica is promoted."""
    cluster = environment.cluster
    master, replica = cluster.master, cluster.replica
    refuse, allow = (("CONFIG", "SET", "min-replicas-to-write", number) for number in (9, 0))
    master.command(*refuse)
    try:
        await cluster.wait_until(
            lambda: _offset(master, "master_repl_offset") <= _offset(replica, "slave_repl_offset")
        )
        await cluster.fail_over()
        await cluster.wait_until(lambda: cluster.master is replica)
        await cluster.wait_until(lambda: _follow(master, replica.port))
    finally:
        master.command(*allow)


def _offset(server: RedisServer, name: str) -> int:
    offset: int = server.client.info("replication")[name]
    return offset


async def kill_master(environment: FaultEnvironment[SentinelCluster]) -> None:
    """The master is killed after its replica has received no writes for `BEHIND_SECONDS`."""
    cluster = environment.cluster
    master, replica = cluster.master, cluster.replica
    async with blackhole_running(master.port) as proxy:
        replica.command("REPLICAOF", HOST, proxy.port)
        await cluster.wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        proxy.drop_all()
        await asyncio.sleep(BEHIND_SECONDS)
        await asyncio.to_thread(master.stop)
    await cluster.wait_until(lambda: cluster.master is replica and _is_master(replica))


def _is_master(server: RedisServer) -> bool:
    role: bytes = server.command("ROLE")[0]
    return role == b"master"


@contextlib.contextmanager
def _sentinels(directory: Path, master: RedisServer) -> Iterator[list[RedisServer]]:
    facts = {"service": SERVICE, "host": HOST, "port": master.port, "quorum": QUORUM}
    lines = [line.format(**facts) for line in SENTINEL]
    with contextlib.ExitStack() as stack:
        sentinels = [
            stack.enter_context(
                redis_running(make_folder(directory, f"sentinel-{at}"), *lines, is_sentinel=True)
            )
            for at in range(3)
        ]
        for sentinel in sentinels:
            with contextlib.suppress(redis.ResponseError):  # before Redis 7.0 the value is fixed
                sentinel.command("SENTINEL", "DEBUG", "TILT-TRIGGER", TILT_MS)
        yield sentinels


@contextlib.asynccontextmanager
async def sentinel_cluster(directory: Path) -> AsyncIterator[SentinelCluster]:
    """Start master, replica and Sentinels, then the nodes."""
    lines = (*DURABLE, "repl-diskless-sync-delay 0", "repl-ping-replica-period 1")
    with (
        redis_running(make_folder(directory, "one"), *lines) as master,
        redis_running(make_folder(directory, "two"), *lines, f"replicaof {HOST} {master.port}") as replica,
        _sentinels(directory, master) as sentinels,
    ):
        cluster = SentinelCluster(directory, [master, replica], sentinels)
        await cluster.settle()
        async with run_cluster(cluster):
            yield cluster


SENTINEL_FAULTS = FaultGroup(
    sentinel_cluster,
    quick=[Fault("a planned Sentinel failover", fail_over_as_planned, REDIS_DISCONNECTED)],
    slow=[
        Fault(
            "a Sentinel failover after the master is killed",
            kill_master,
            REDIS_DISCONNECTED,
            history_loss=HistoryLoss.POSSIBLE,
        )
    ],
)
