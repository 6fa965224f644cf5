"""A Redis server for tests: a process on a free port, with its own directory."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import redis

from tests.support.timing import STARTED, TICK


class RedisServer:
    """A server that tests stop, start again, and freeze. `config` contains lines of its configuration.

    In a line, `{free_port}` is replaced with a second free port, which is `second_port`.
    """

    def __init__(
        self,
        directory: Path,
        *config: str,
        is_sentinel: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self.second_port = free_ports(2)
        self.directory = directory
        self._config = config
        self._flags = ["--sentinel"] if is_sentinel else []
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the server was started and has not been stopped."""
        return self._process is not None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def client(self) -> redis.Redis:
        """A client, for reading the state and causing faults."""
        if self._client is None:
            self._client = redis.Redis(port=self.port, socket_timeout=STARTED)
        return self._client

    def command(self, *words: Any) -> Any:
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {self.directory}", *self._config]
        lines = [line.replace("{free_port}", str(self.second_port)) for line in lines]
        if not self._flags:
            lines.append('save ""')
        file = self.directory / "redis.conf"
        if not file.exists():  # a Sentinel rewrites its file
            file.write_text("\n".join(lines) + "\n")
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", str(file), *self._flags], stdout=log, stderr=log, env=self._environment
            )
        self._wait_until_ready()

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Kill the server."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait(STARTED)
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill_pubsub_connections(self) -> int:
        """Disconnect all pub/sub clients. Returns their number."""
        count: int = self.command("CLIENT", "KILL", "TYPE", "pubsub")
        return count

    def _wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + STARTED
        while True:
            try:
                with redis.Redis(port=self.port, socket_timeout=STARTED) as client:
                    if client.ping():
                        return
            except redis.ConnectionError:
                has_ended = self._process is not None and self._process.poll() is not None
                if has_ended or time.monotonic() > give_up_at:
                    raise AssertionError((self.directory / "redis.log").read_text()) from None
                time.sleep(TICK / 5)


FIRST_PORT, PORTS_OF_A_WORKER = 12_000, 2000
"""Below the ephemeral ports, so that the system gives none of them to another program before it is bound."""

_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_ports = itertools.count(random.randrange(PORTS_OF_A_WORKER))  # another test run may be active


def free_ports(count: int) -> list[int]:
    """Find free ports. Each call returns other ports."""
    found: list[int] = []
    while len(found) < count:
        port = FIRST_PORT + _worker * PORTS_OF_A_WORKER + next(_ports) % PORTS_OF_A_WORKER
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


@contextlib.contextmanager
def redis_running(
    directory: Path,
    *config: str,
    is_sentinel: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RedisServer]:
    server = RedisServer(directory, *config, is_sentinel=is_sentinel, environment=environment)
    server.start()
    try:
        yield server
    finally:
        server.stop()
