"""The system under attack: two nodes over one small Redis, honest clients on both, and what it all holds.

A third node, over a Redis of its own, is another system on the same machine. Attacks on it show how much of
the attacker's own load the honest clients notice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from tests.deploy.nginx import run_nginx
from tests.faults.cluster import NodeProcess, make_folder
from tests.hostile.attacks.attacker import Target
from tests.hostile.attacks.callers import PUBLISHER
from tests.hostile.attacks.readers import fill_histories
from tests.hostile.honest_clients import Observation
from tests.server.engine.redis.redis_server import RedisServer, free_ports, redis_running
from tests.support.api import NO_TLS
from tests.support.configs import API_KEY, Table
from tests.support.tcp import HOST
from tests.support.timing import SOON, TICK
from tests.support.tokens import SECRET
from tests.support.worker import WorkerProcess, run_worker

OPEN: Table = {
    "history_size": 300,
    "history_ttl": "300s",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
    "allow_subscribe_for_anonymous": True,
    "allow_publish_for_client": True,
    "allow_history_for_client": True,
}
HONEST: Table = {**OPEN, "presence": True, "join_leave": True, "allow_publish_for_client": False}

REDIS = (
    "maxmemory 256mb",
    "maxmemory-policy noeviction",
    f"user {PUBLISHER} on >{PUBLISHER} allchannels -@all +publish +hello +auth +client",
)


def config(engine_url: str) -> Table:
    """A node that faces the internet, with the default of every limit. Its attacker has a public address."""
    return {
        "server": {"drain_seconds": 1, "trusted_proxies": [HOST]},
        "engine": {"url": engine_url},
        "client": {"allow_anonymous": True, "token_hmac_secret": SECRET},
        "api": {"keys": [API_KEY]},
        "limits": {"exempt_addresses": [HOST]},
        "namespaces": {
            "open": OPEN,
            "honest": HONEST,
            "closed": {"history_size": 1, "history_ttl": "1s"},
            "plain": {},
        },
    }


class Holding(NamedTuple):
    """What the node under attack and Redis hold."""

    memory: int
    """Resident bytes of the node."""
    connections: int
    """Connections that the node counts."""
    redis_memory: int
    """Bytes that Redis uses for data."""
    redis_keys: int
    """Keys in Redis, without those of idempotency keys: the honest publisher makes them."""
    live_nodes: int
    """How many nodes the other node knows to be alive."""


class Environment:
    """Two nodes; the first one is attacked, or the node of the other system."""

    def __init__(
        self,
        nodes: Sequence[NodeProcess],
        redis: RedisServer,
        honest: WorkerProcess,
        http: httpx.AsyncClient,
        attacked: Target,
        elsewhere: Target,
    ) -> None:
        self._nodes = nodes
        self._attacked = attacked
        self._elsewhere = elsewhere
        self._redis = redis
        self._honest = honest
        self._http = http

    async def observe(self, seconds: float) -> Observation:
        """What the honest clients notice in so many seconds."""
        return Observation(*await self._honest.call(seconds))

    @contextlib.asynccontextmanager
    async def attacked(self, *attacks: str, elsewhere: bool = False) -> AsyncIterator[None]:
        """Run attacks in a process of their own, while the context lasts; `elsewhere`: on the other one."""
        target = self._elsewhere if elsewhere else self._attacked
        async with run_worker("tests.hostile.attacker", target.port, target.redis_port, *attacks):
            yield

    async def holding(self) -> Holding:
        """What is held now."""
        node, other = self._nodes
        assert node.server is not None
        memory = psutil.Process(node.server.process.pid).memory_info().rss
        info = await self._info(other.url)
        redis = await asyncio.to_thread(self._redis.client.info, "memory")
        dataset = int(redis["used_memory_dataset"])
        return Holding(
            memory,
            await self._connections(node.url),
            dataset if dataset < 2**40 else 0,  # Redis subtracts two readings, and the result may wrap around
            await asyncio.to_thread(self._lasting_keys),
            len(info["nodes"]),
        )

    async def settled(self, is_settled: Callable[[Holding], bool], seconds: float = 10 * SOON) -> Holding:
        """What is held once `is_settled` says so, or after so many seconds.

        Redis frees the buffers of clients that are gone a moment after their connections.
        """
        held = await self.holding()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not is_settled(held):
                    await asyncio.sleep(5 * TICK)
                    held = await self.holding()
        return held

    def tracebacks(self) -> int:
        """How many tracebacks the nodes have logged."""
        return sum(node.server.stderr.count("Traceback") for node in self._nodes if node.server is not None)

    def _lasting_keys(self) -> int:
        return sum(b":idem:" not in key for key in self._redis.client.scan_iter(count=10_000))

    async def _info(self, url: str) -> dict[str, list[object]]:
        response = await self._http.post(f"{url}/api/info", json={}, headers={"X-API-Key": API_KEY})
        result: dict[str, list[object]] = response.json()["result"]
        return result

    async def _connections(self, url: str) -> int:
        response = await self._http.get(f"{url}/metrics", headers={"X-API-Key": API_KEY})
        counts = [
            line.split() for line in response.text.splitlines() if line.startswith("tocsin_connections{")
        ]
        return sum(int(float(count)) for _, count in counts)


@contextlib.asynccontextmanager
async def open_environment(
    directory: Path, honest_clients: int, *, uses_nginx: bool = False
) -> AsyncIterator[Environment]:
    """Start Redis, two nodes and the honest clients. At the end, check how the nodes end.

    With `uses_nginx`, the attacker reaches its node through the nginx of `deploy/`.
    """
    with ExitStack() as stack:
        redis, other_redis = (
            stack.enter_context(redis_running(make_folder(directory, name), *REDIS))
            for name in ("redis", "other-redis")
        )
        nodes = [NodeProcess(directory / f"node-{at}", config(redis.url)) for at in range(2)]
        other_node = NodeProcess(directory / "other-node", config(other_redis.url))
        try:
            await asyncio.gather(*(node.start() for node in (*nodes, other_node)))
            async with (
                httpx.AsyncClient(timeout=10 * SOON, trust_env=False, verify=NO_TLS) as http,
                run_worker(
                    "tests.hostile.honest_clients", honest_clients, *(node.url for node in nodes)
                ) as honest,
            ):
                ports = [node.server.port for node in (nodes[0], other_node) if node.server is not None]
                for port in ports:
                    await fill_histories(port)
                if uses_nginx:
                    nginx_ports = free_ports(len(ports))
                    for at, port in enumerate(nginx_ports):
                        folder = make_folder(directory, f"nginx-{at}")
                        stack.enter_context(run_nginx([ports[at]], port, folder))
                    ports = nginx_ports
                attacked, elsewhere = map(Target, ports, (redis.port, other_redis.port))
                yield Environment(nodes, redis, honest, http, attacked, elsewhere)
        finally:
            await asyncio.gather(*(node.stop() for node in (*nodes, other_node)))
