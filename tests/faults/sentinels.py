"""A Redis with a replica and three Sentinels: a failover that was planned, and one that was not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import redis

from tests.faults.cluster import Cluster, Member, engine, folder, started
from tests.faults.fault_environment import LINK_BROKEN, Fault, Logs, Setting, Stage
from tests.faults.standalone import EVERYTHING
from tests.server.engine.redis.blackhole_proxy import blackhole_running
from tests.server.engine.redis.redis_server import RedisServer, redis_running
from tests.support.proxies import HOST
from tests.support.timing import STARTED, TICK

SERVICE = "mymaster"
QUORUM = 2
BEHIND_SECONDS = 0.5
"""How far behind its master a replica is made before the master dies."""
STANDSTILL_MS = 60_000
"""A Sentinel that stood still for longer does nothing for half a minute. Usually it is two seconds."""

SENTINEL = (
    "sentinel monitor {service} {host} {port} {quorum}",
    "sentinel down-after-milliseconds {service} 1000",
    "sentinel failover-timeout {service} 2000",
)


class Watched(Cluster):
    """Two servers, one of which is the master, as the Sentinels say."""

    def __init__(
        self, directory: Path, servers: Sequence[RedisServer], sentinels: Sequence[RedisServer]
    ) -> None:
        self._servers = servers
        self._sentinels = sentinels
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in sentinels)
        url = f"redis+sentinel://{hosts}/{SERVICE}"
        super().__init__([Member(directory / f"node-{at}", engine(url)) for at in range(3)])

    @property
    def master(self) -> RedisServer:
        """Which one it is, as all Sentinels say: StopIteration while they do not agree."""
        ports = {int(self._ask(sentinel, "GET-MASTER-ADDR-BY-NAME")[1]) for sentinel in self._sentinels}
        return next(server for server in self._servers if ports == {server.port})

    @property
    def replica(self) -> RedisServer:
        """The other one."""
        master = self.master
        return next(server for server in self._servers if server is not master)

    def _ask(self, sentinel: RedisServer, word: str) -> list[bytes]:
        answer: list[bytes] = sentinel.command("SENTINEL", word, SERVICE)
        return answer

    async def settle(self) -> None:
        """Whoever is not the master follows it, and all Sentinels would let it take over."""
        for server in self._servers:
            if not server.is_running:
                await asyncio.to_thread(server.start)
        await self.until(lambda: _follow(self.replica, self.master.port))
        await self.until(lambda: all(self._has_heir(sentinel) for sentinel in self._sentinels))

    def _has_heir(self, sentinel: RedisServer) -> bool:
        (state,) = sentinel.client.sentinel_slaves(SERVICE)
        return not (state["is_sdown"] or state["is_disconnected"]) and state["master-link-status"] == "ok"

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds; servers that cannot say are asked again."""
        async with asyncio.timeout(STARTED):
            while not await asyncio.to_thread(_holds, condition):  # noqa: ASYNC110 - servers have to be asked
                await asyncio.sleep(TICK)

    async def fail_over(self) -> None:
        """Ask a Sentinel for it, until it begins."""
        await self.until(lambda: self._sentinels[0].command("SENTINEL", "FAILOVER", SERVICE) == b"OK")


def _holds(condition: Callable[[], bool]) -> bool:
    with contextlib.suppress(redis.RedisError, StopIteration, ValueError):
        return condition()
    return False


def _follow(server: RedisServer, port: int) -> bool:
    """Have a server follow that master; say whether it has all that it has."""
    state = server.client.info("replication")
    if state["role"] == "master" or state["master_port"] != port:
        server.command("REPLICAOF", HOST, port)
    return state.get("master_link_status") == "up"


async def hand_over(stage: Stage[Watched]) -> None:
    """The master takes no more writes, the replica has all of them, and then takes over."""
    cluster = stage.cluster
    master, replica = cluster.master, cluster.replica
    refuse, allow = (("CONFIG", "SET", "min-replicas-to-write", number) for number in (9, 0))
    master.command(*refuse)
    try:
        await cluster.until(
            lambda: _offset(master, "master_repl_offset") <= _offset(replica, "slave_repl_offset")
        )
        await cluster.fail_over()
        await cluster.until(lambda: cluster.master is replica)
        await cluster.until(lambda: _follow(master, replica.port))
    finally:
        master.command(*allow)


def _offset(server: RedisServer, name: str) -> int:
    offset: int = server.client.info("replication")[name]
    return offset


async def kill_master(stage: Stage[Watched]) -> None:
    """The master dies without a word; its replica had not heard of it for a while."""
    cluster = stage.cluster
    master, replica = cluster.master, cluster.replica
    async with blackhole_running(master.port) as way:
        replica.command("REPLICAOF", HOST, way.port)
        await cluster.until(lambda: replica.client.info("replication")["master_link_status"] == "up")
        way.drop_all()
        await asyncio.sleep(BEHIND_SECONDS)
        await asyncio.to_thread(master.stop)
    await cluster.until(lambda: cluster.master is replica and _is_master(replica))


def _is_master(server: RedisServer) -> bool:
    role: bytes = server.command("ROLE")[0]
    return role == b"master"


@contextlib.contextmanager
def _sentinels(directory: Path, master: RedisServer) -> Iterator[list[RedisServer]]:
    facts = {"service": SERVICE, "host": HOST, "port": master.port, "quorum": QUORUM}
    lines = [line.format(**facts) for line in SENTINEL]
    with contextlib.ExitStack() as stack:
        sentinels = [
            stack.enter_context(redis_running(folder(directory, f"sentinel-{at}"), *lines, is_sentinel=True))
            for at in range(3)
        ]
        for sentinel in sentinels:
            with contextlib.suppress(redis.ResponseError):  # before Redis 7.0 that is fixed
                sentinel.command("SENTINEL", "DEBUG", "TILT-TRIGGER", STANDSTILL_MS)
        yield sentinels


@contextlib.asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[Watched]:
    """Start master, replica, Sentinels, then the members."""
    lines = (*EVERYTHING, "repl-diskless-sync-delay 0", "repl-ping-replica-period 1")
    with (
        redis_running(folder(directory, "one"), *lines) as master,
        redis_running(folder(directory, "two"), *lines, f"replicaof {HOST} {master.port}") as replica,
        _sentinels(directory, master) as sentinels,
    ):
        cluster = Watched(directory, [master, replica], sentinels)
        await cluster.settle()
        async with started(cluster):
            yield cluster


BEHIND_SENTINELS = Setting(
    watched,
    brief=[Fault("a Sentinel failover, planned", hand_over, LINK_BROKEN)],
    long=[Fault("a Sentinel failover, the master killed", kill_master, LINK_BROKEN, logs=Logs.MAY_DIE)],
)
