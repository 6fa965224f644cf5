"""The cluster under test: nodes in processes of their own, and what watches who is ready."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import httpx
import psutil

from tests.support.api import NO_TLS
from tests.support.configs import API_KEY, Table
from tests.support.server import TOCSIN, Server, as_toml
from tests.support.timing import SOON, STARTED, TICK

NAMESPACE = "fault"
ATTEMPTS = 3

CONFIG: Table = {
    "server": {"drain_seconds": 1},
    "client": {"insecure": True, "queue_limit_bytes": 262_144},
    "api": {"keys": [API_KEY]},
    "namespaces": {
        NAMESPACE: {"history_size": 20_000, "history_ttl": "5h", "force_recovery": True},
    },
}
"""Logs outlast any fault, clocks that jump by hours included: nobody has to be told unless a log dies."""


class Member:
    """One node: a process that may die and come back, at another port each time unless it has one."""

    def __init__(
        self, directory: Path, config: Table, environment: Mapping[str, str] | None = None, port: int = 0
    ) -> None:
        directory.mkdir()
        self._file = directory / "tocsin.toml"
        self._file.write_text(as_toml(config))
        self._environment = {**os.environ, **(environment or {})}
        self._port = port
        self.server: Server | None = None
        self.is_ready = False
        self.health = ""
        """What it last answered when it was asked whether it is ready."""

    async def start(self) -> None:
        """Run it until it listens; where it cannot use Redis yet, again, as whoever supervises it would."""
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(AssertionError):
                self.server = await asyncio.to_thread(self._start)
                return
        self.server = await asyncio.to_thread(self._start)

    def _start(self) -> Server:
        command = [str(TOCSIN), "serve", "--port", str(self._port), "--config", str(self._file)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self._environment)
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

    @property
    def connections(self) -> int:
        """How many sockets it has open at present."""
        if self.server is None:
            return 0
        return len(psutil.Process(self.server.process.pid).net_connections("tcp"))


class Cluster:
    """Members that share an engine. Who derives from it knows the Redis, and what can be done to it."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    @property
    def running(self) -> list[Member]:
        """Those with a process that listens."""
        return [member for member in self.members if member.server is not None]

    def ports(self) -> dict[int, bool]:
        """Where to connect, each port with whether its member is ready."""
        return {member.server.port: member.is_ready for member in self.members if member.server is not None}

    def said(self) -> list[tuple[float, str]]:
        """What the running members logged, each line with its moment."""
        return [line for member in self.running if member.server for line in member.server.said]

    async def settle(self) -> None:
        """Wait until the next fault can strike."""

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
        try:
            async with asyncio.timeout(STARTED):
                for member in members:
                    while member.is_ready != is_ready:  # noqa: ASYNC110 - known by looking, see `watch`
                        await asyncio.sleep(TICK)
        except TimeoutError:
            raise AssertionError([f"{member.server}: {member.health}" for member in self.members]) from None


async def _look(member: Member, http: httpx.AsyncClient) -> None:
    if (server := member.server) is None:  # it ended since it was to be looked at
        return
    try:
        answer = await http.get(f"{server.url}/health/ready")
    except httpx.TransportError as error:
        member.is_ready, member.health = False, repr(error)
    else:
        member.is_ready = member.server is server and answer.status_code == 200
        member.health = answer.text


Home = TypeVar("Home", bound=Cluster)


def engine(url: str) -> Table:
    """The usual configuration, with this Redis."""
    return {**CONFIG, "engine": {"url": url, "prefix": "faults"}}


@contextlib.asynccontextmanager
async def started(cluster: Home) -> AsyncIterator[Home]:
    """Start every member; afterwards every one must have ended well."""
    try:
        await asyncio.gather(*(member.start() for member in cluster.members))
        yield cluster
    finally:
        await asyncio.gather(*(member.stop() for member in cluster.members))


def folder(parent: Path, name: str) -> Path:
    """Make one."""
    made = parent / name
    made.mkdir()
    return made
