"""The cluster under test: node processes, and the observation of their readiness."""

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
START_ATTEMPTS = 3

CONFIG: Table = {
    "server": {"drain_seconds": 1},
    "client": {"insecure": True, "queue_limit_bytes": 262_144},
    "api": {"keys": [API_KEY]},
    "namespaces": {
        NAMESPACE: {"history_size": 20_000, "history_ttl": "5h", "force_recovery": True},
    },
}
"""History outlasts every fault, also clocks that jump by hours. A gap therefore means a lost history."""


class NodeProcess:
    """A node in a process that can be stopped, killed and started again.

    It has another port after each start, unless `port` is given. The mutable state is `server` (None while
    the process does not run), `is_ready` and `health` (the last reply to a readiness check).
    """

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

    async def start(self) -> None:
        """Start the process, and wait until it accepts connections.

        A node that cannot use Redis yet exits. It is started again, as a process supervisor would do.
        """
        for _ in range(START_ATTEMPTS - 1):
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
            server.stop()
            raise
        return server

    async def stop(self) -> None:
        """Send SIGTERM, and check that the process ends with exit code 0 and without a traceback."""
        if (server := self.server) is not None:
            self.is_ready = False
            code = await asyncio.to_thread(server.stop)
            self.server = None
            assert code == 0, f"exit code {code}:\n{server.stderr}"
            assert "Traceback" not in server.stderr, server.stderr

    async def kill(self) -> None:
        """Send SIGKILL."""
        if (server := self.server) is not None:
            self.server, self.is_ready = None, False
            server.process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(server.process.wait, STARTED)
            assert "Traceback" not in server.stderr, server.stderr

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url

    @property
    def connections(self) -> int:
        """The number of its open sockets."""
        if self.server is None:
            return 0
        return len(psutil.Process(self.server.process.pid).net_connections("tcp"))


class Cluster:
    """Nodes that share an engine. Subclasses add the Redis, and what can be done to it."""

    def __init__(self, nodes: Sequence[NodeProcess]) -> None:
        self.nodes = nodes

    @property
    def running(self) -> list[NodeProcess]:
        """The nodes whose process accepts connections."""
        return [node for node in self.nodes if node.server is not None]

    def ports(self) -> dict[int, bool]:
        """The ports of the running nodes, each with whether its node is ready."""
        return {node.server.port: node.is_ready for node in self.nodes if node.server is not None}

    def stderr_lines(self) -> list[tuple[float, str]]:
        """The log lines of the running nodes, each with its monotonic second."""
        return [line for node in self.running if node.server for line in node.server.stderr_lines]

    async def settle(self) -> None:
        """Wait until the next fault can be injected."""

    async def watch(self) -> None:
        """Check the readiness of every node repeatedly, as a balancer does, until cancelled."""
        async with httpx.AsyncClient(timeout=SOON / 10, trust_env=False, verify=NO_TLS) as http:
            while True:
                await asyncio.gather(*(_check_readiness(node, http) for node in self.running))
                await asyncio.sleep(2 * TICK)

    async def wait_until_ready(self, *nodes: NodeProcess) -> None:
        """Wait until these nodes, or all nodes, are ready. Needs `watch` to run."""
        await self._wait_until(*(nodes or self.nodes), is_ready=True)

    async def wait_until_not_ready(self, *nodes: NodeProcess) -> None:
        """Wait until these nodes are not ready. Needs `watch` to run."""
        await self._wait_until(*nodes, is_ready=False)

    async def _wait_until(self, *nodes: NodeProcess, is_ready: bool) -> None:
        try:
            async with asyncio.timeout(STARTED):
                for node in nodes:
                    while node.is_ready != is_ready:  # noqa: ASYNC110 - `watch` sets it
                        await asyncio.sleep(TICK)
        except TimeoutError:
            raise AssertionError([f"{node.server}: {node.health}" for node in self.nodes]) from None


async def _check_readiness(node: NodeProcess, http: httpx.AsyncClient) -> None:
    if (server := node.server) is None:  # it ended since the check was scheduled
        return
    try:
        response = await http.get(f"{server.url}/health/ready")
    except httpx.TransportError as error:
        node.is_ready, node.health = False, repr(error)
    else:
        node.is_ready = node.server is server and response.status_code == 200
        node.health = response.text


AnyCluster = TypeVar("AnyCluster", bound=Cluster)


def config_with_engine(url: str) -> Table:
    """The common configuration, with the Redis at this URL."""
    return {**CONFIG, "engine": {"url": url, "prefix": "faults"}}


@contextlib.asynccontextmanager
async def run_cluster(cluster: AnyCluster) -> AsyncIterator[AnyCluster]:
    """Start every node; at the end, stop every node and check how it ended."""
    try:
        starts = await asyncio.gather(*(node.start() for node in cluster.nodes), return_exceptions=True)
        for error in starts:
            if error is not None:
                raise error  # only now that no other process is being started
        yield cluster
    finally:
        await asyncio.gather(*(node.stop() for node in cluster.nodes))


def make_folder(parent: Path, name: str) -> Path:
    """Create a folder."""
    made = parent / name
    made.mkdir()
    return made
