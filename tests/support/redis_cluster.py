"""A Redis Cluster for tests: three masters with a replica each, which tests kill, fail over and reshard.

Every function blocks. A coroutine must call it with `asyncio.to_thread`, so that a node in the test keeps
running.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from tests.server.engine.redis.redis_server import RedisServer
from tests.support.timing import STARTED, TICK
from tocsin_server.engine.redis.keys import Keys

MASTERS = 3
REPLICAS = 1
"""The number of replicas of each master."""
NODE_TIMEOUT_MS = 1000
"""A master that is silent for so long is failed over. After a kill, that takes about two seconds."""

CONFIG_LINES = (
    "cluster-enabled yes",
    "cluster-config-file nodes.conf",
    f"cluster-node-timeout {NODE_TIMEOUT_MS}",
    "cluster-port {free_port}",  # not the port plus 10000, which may not exist
    "cluster-replica-validity-factor 0",
    "repl-diskless-sync-delay 0",
    "repl-ping-replica-period 1",  # a replica that has received nothing from its master is not listed
)


class Range(NamedTuple):
    """A range of slots, and the ports of its servers: first the master, then its replicas."""

    first: int
    last: int
    ports: tuple[int, ...]


class RedisCluster:
    """Six servers. `config` contains further lines of every server's configuration."""

    def __init__(self, directory: Path, *config: str) -> None:
        self._directory = directory
        self._config = config
        self.servers: list[RedisServer] = []

    @property
    def url(self) -> str:
        """The URL for the engine, with every server in it."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def start(self) -> None:
        """Start all servers, and form a cluster in which every master has its replica."""
        for number in range(MASTERS * (1 + REPLICAS)):
            folder = self._directory / f"server-{number}"
            folder.mkdir()
            server = RedisServer(folder, *CONFIG_LINES, *self._config)
            server.start()
            self.servers.append(server)
        hosts = [f"127.0.0.1:{server.port}@{server.second_port}" for server in self.servers]
        command = ["redis-cli", "--cluster", "create", *hosts, "--cluster-replicas", f"{REPLICAS}"]
        subprocess.run([*command, "--cluster-yes"], check=True, capture_output=True, timeout=STARTED)
        self.repair()

    def stop(self) -> None:
        """Stop all servers."""
        for server in self.servers:
            server.stop()

    # -------------------------------------------------------------------------------------- reading the state

    @property
    def running(self) -> list[RedisServer]:
        """The servers that have not been killed."""
        return [server for server in self.servers if server.is_running]

    @property
    def masters(self) -> list[RedisServer]:
        """The servers that serve slots."""
        ports = {served.ports[0] for served in ranges(self.running[0])}
        return [server for server in self.servers if server.port in ports]

    def master_of(self, channel: str) -> RedisServer:
        """The master that serves a channel."""
        return self._server(self._range_of(channel).ports[0])

    def replica_of(self, channel: str) -> RedisServer:
        """The replica of the master that serves a channel."""
        return self._server(self._range_of(channel).ports[1])

    def channels_on_all(self) -> list[str]:
        """One channel for each master."""
        found: dict[int, str] = {}
        for number in range(1000):
            found.setdefault(self.master_of(f"c{number}").port, f"c{number}")
            if len(found) == len(self.masters):
                break
        return list(found.values())

    def until_replicated(self, channel: str) -> None:
        """Wait until a channel's replica has received every write of its master."""
        master, replica = self.master_of(channel), self.replica_of(channel)
        offset = _replication(master)["master_repl_offset"]
        until(lambda: _replication(replica)["slave_repl_offset"] >= offset)

    def until_known(self, port: int) -> None:
        """Wait until every server lists a master at a port."""
        until(
            lambda: all(any(port == served.ports[0] for served in ranges(server)) for server in self.running)
        )

    def _range_of(self, channel: str) -> Range:
        slot = slot_of(channel)
        return next(some for some in ranges(self.running[0]) if some.first <= slot <= some.last)

    def _server(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)

    # ------------------------------------------------------------------------------------- causing faults

    def kill_master_of(self, channel: str) -> RedisServer:
        """Kill the master that serves a channel. Its replica takes over."""
        master = self.master_of(channel)
        master.stop()
        return master

    def failover(self, channel: str) -> None:
        """Make a channel's master and its replica change roles, without losing a write.

        Redis gives up after 5 s if the other masters do not vote. They do not vote twice within a short time.
        """
        replica = self.replica_of(channel)
        retry_at = 0.0

        def is_done() -> bool:
            nonlocal retry_at
            if self.master_of(channel) is replica:
                return self._is_healthy()
            if time.monotonic() >= retry_at:
                replica.command("CLUSTER", "FAILOVER")
                retry_at = time.monotonic() + FAILOVER_SECONDS
            return False

        until(is_done)

    def migrate(self, channel: str) -> RedisServer:
        """Move a channel's slot with all its keys to another master. Returns that master."""
        with self.migrating(channel) as move:
            move()
        return self.master_of(channel)

    @contextlib.contextmanager
    def migrating(self, channel: str) -> Iterator[Callable[[], None]]:
        """Let a channel's slot be moving to another master. Call the result to move the slot's keys."""
        slot, source = slot_of(channel), self.master_of(channel)
        target = next(server for server in self.masters if server is not source)
        target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", node_id(source))
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", node_id(target))

        def move() -> None:
            while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
                source.command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)

        try:
            yield move
        finally:
            move()
            for server in (target, source, *self.masters):
                server.command("CLUSTER", "SETSLOT", slot, "NODE", node_id(target))
            until(self._is_healthy)

    def repair(self) -> None:
        """Start every killed server, and wait until all servers agree that the cluster is healthy."""
        for server in self.servers:
            if not server.is_running:
                server.start()
        until(self._is_healthy)

    def _is_healthy(self) -> bool:
        views = [ranges(server) for server in self.servers]
        replicas = [server for server in self.servers if server not in self.masters]
        return (
            all(view == views[0] for view in views)
            and all(len(served.ports) == 1 + REPLICAS for served in views[0])
            and sum(served.last - served.first + 1 for served in views[0]) == REDIS_CLUSTER_HASH_SLOTS
            and all(_reports_ok(server) for server in self.servers)
            and all(_follows(server) for server in replicas)
        )


FAILOVER_SECONDS = 5.5
"""After so long a requested failover has happened or has failed."""


def slot_of(channel: str) -> int:
    """The slot of all keys of a channel. It does not depend on the prefix."""
    return key_slot(Keys("tocsin").pubsub_name(channel).encode())


def ranges(server: RedisServer) -> list[Range]:
    """The ranges of slots and their servers, as one server sees them."""
    answer = server.command("CLUSTER", "SLOTS")
    return sorted(Range(first, last, tuple(host[1] for host in hosts)) for first, last, *hosts in answer)


def node_id(server: RedisServer) -> str:
    """The id of a server in its cluster."""
    name: bytes = server.command("CLUSTER", "MYID")
    return name.decode()


def _reports_ok(server: RedisServer) -> bool:
    answer: bytes = server.command("CLUSTER", "INFO")
    return b"cluster_state:ok" in answer


def _follows(server: RedisServer) -> bool:
    return _replication(server).get("master_link_status") == "up"


def _replication(server: RedisServer) -> dict[str, Any]:
    info = server.client.info("replication")
    assert isinstance(info, dict)
    return info


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds. Redis errors count as not fulfilled."""
    give_up_at = time.monotonic() + STARTED
    while True:
        with contextlib.suppress(redis.RedisError, StopIteration):
            if condition():
                return
        assert time.monotonic() < give_up_at, "the condition was not fulfilled in time"
        time.sleep(TICK / 5)


@contextlib.contextmanager
def cluster_running(directory: Path, *config: str) -> Iterator[RedisCluster]:
    """Run a healthy cluster."""
    cluster = RedisCluster(directory, *config)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
