"""The cluster under test: one Redis, nodes in processes of their own, and what watches who is ready."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from tests.server.cluster.redis.redis_server import RedisServer, redis_running
from tests.server.cluster.redis.swallower import Swallower, swallowing
from tests.support.api import NO_TLS
from tests.support.configs import API_KEY, Table
from tests.support.server import TOCSIN, Server, as_toml
from tests.support.timing import SOON, STARTED, TICK

NAMESPACE = "fault"

CONFIG: Table = {
    "server": {"drain_seconds": 1},
    "client": {"insecure": True, "queue_limit_bytes": 262_144},
    "api": {"keys": [API_KEY]},
    "namespaces": {
        NAMESPACE: {"history_size": 20_000, "history_ttl": "3600s", "force_recovery": True},
    },
}
"""Logs that outlast any fault, so that nobody has to be told of anything unless a log dies."""


class Member:
    """One node: a process that may die and come back, at another port each time."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        directory.mkdir()
        self._file = directory / "tocsin.toml"
        self._file.write_text(as_toml({**CONFIG, "engine": {"url": redis_url, "prefix": "faults"}}))
        self.server: Server | None = None
        self.is_ready = False

    async def start(self) -> None:
        """Run it until it listens."""
        self.server = await asyncio.to_thread(self._start)

    def _start(self) -> Server:
        command = [str(TOCSIN), "serve", "--port", "0", "--config", str(self._file)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server = Server(process)
        try:
            server.wait_until_ready()
        except BaseException:
            process.kill()
            raise
        return server

    async def stop(self) -> None:
        """SIGTERM. It must end well."""
        if (server := self.server) is not None:
            self.is_ready = False
            code = await asyncio.to_thread(server.stop)
            self.server = None
            assert code == 0, f"exit code {code}:\n{server.errors}"
            assert "Traceback" not in server.errors, server.errors

    async def kill(self) -> None:
        """SIGKILL."""
        if (server := self.server) is not None:
            self.server, self.is_ready = None, False
            server.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(server.process.wait, STARTED)
            assert "Traceback" not in server.errors, server.errors

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url


class Cluster:
    """Three members; the last one reaches Redis through `way`, on which bytes can be lost."""

    def __init__(self, directory: Path, redis: RedisServer, way: Swallower) -> None:
        self.redis = redis
        self.way = way
        urls = [redis.url, redis.url, way.url]
        self.members = [Member(directory / f"node-{number}", url) for number, url in enumerate(urls)]

    @property
    def running(self) -> list[Member]:
        """Those with a process that listens."""
        return [member for member in self.members if member.server is not None]

    def ports(self) -> list[int]:
        """Where to connect: those that are ready first, each kind in a random order."""
        members = random.sample(self.running, len(self.running))
        return [
            member.server.port
            for member in sorted(members, key=lambda member: not member.is_ready)
            if member.server is not None
        ]

    async def restart_redis(self, *, empty: bool = False) -> None:
        """Kill it and start it again, with what it had written down or without."""
        await asyncio.to_thread(self.redis.stop)
        if empty:
            shutil.rmtree(self.redis.directory / "appendonlydir")
        await asyncio.to_thread(self.redis.start)

    def listener_ids(self) -> set[int]:
        """The connections that hear announcements, by their numbers at Redis."""
        return {int(line["id"]) for line in self.redis.client.client_list(_type="pubsub")}

    async def watch(self) -> None:
        """Ask every node whether it is ready, for good, as a balancer does."""
        async with httpx.AsyncClient(timeout=SOON / 10, trust_env=False, verify=NO_TLS) as http:
            while True:
                await asyncio.gather(*(_look(member, http) for member in self.running))
                await asyncio.sleep(2 * TICK)

    async def until_ready(self, *members: Member) -> None:
        """Wait until these, or all, are ready."""
        await self._until(*(members or self.members), is_ready=True)

    async def until_not_ready(self, *members: Member) -> None:
        """Wait until these have noticed that something is wrong."""
        await self._until(*members, is_ready=False)

    async def _until(self, *members: Member, is_ready: bool) -> None:
        async with asyncio.timeout(STARTED):
            for member in members:
                while member.is_ready != is_ready:  # noqa: ASYNC110 - known by looking, see `watch`
                    await asyncio.sleep(TICK)


async def _look(member: Member, http: httpx.AsyncClient) -> None:
    try:
        answer = await http.get(f"{member.url}/health/ready")
    except httpx.TransportError:
        member.is_ready = False
    else:
        member.is_ready = member.server is not None and answer.status_code == 200


@contextlib.asynccontextmanager
async def clustered(directory: Path) -> AsyncIterator[Cluster]:
    """Start everything; afterwards every node must have ended well."""
    folder = directory / "redis"
    folder.mkdir()
    with redis_running(folder, "appendonly yes", "appendfsync always") as redis:
        async with swallowing(redis.port) as way:
            cluster = Cluster(directory, redis, way)
            try:
                await asyncio.gather(*(member.start() for member in cluster.members))
                yield cluster
            finally:
                await asyncio.gather(*(member.stop() for member in cluster.members))
