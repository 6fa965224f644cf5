"""A real Redis of the tests' own: a process on a free port, with a directory of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.support.timing import STARTED, TICK


class RedisServer:
    """May be stopped, started again, and frozen. `config` are further lines of its configuration."""

    def __init__(self, directory: Path, *config: str, program: str = "redis-server") -> None:
        self.port = free_port()
        self.directory = directory
        self._config = config
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._client: redis.Redis | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def client(self) -> redis.Redis:
        """A plain client, for looking in and for making trouble."""
        if self._client is None:
            self._client = redis.Redis(port=self.port, socket_timeout=STARTED)
        return self._client

    def command(self, *words: Any) -> Any:
        return self.client.execute_command(*words)  # type: ignore[no-untyped-call]

    def start(self) -> None:
        lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {self.directory}", 'save ""', *self._config]
        file = self.directory / "redis.conf"
        if not file.exists():  # a Sentinel writes into its own
            file.write_text("\n".join(lines) + "\n")
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, str(file)], stdout=log, stderr=log)
        self._wait_until_ready()

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End at once, without a farewell."""
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

    def cut_links(self) -> int:
        """Disconnect everybody who hears announcements."""
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
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(TICK / 5)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def redis_running(directory: Path, *config: str, program: str = "redis-server") -> Iterator[RedisServer]:
    server = RedisServer(directory, *config, program=program)
    server.start()
    try:
        yield server
    finally:
        server.stop()
