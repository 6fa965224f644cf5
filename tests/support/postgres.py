"""A PostgreSQL server for tests: a cluster of its own in a temporary directory, on a free port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.server.engine.redis.redis_server import free_ports
from tests.support.timing import STARTED

USER = "tests"
PASSWORD = "outbox-password-that-no-log-may-have"

_CONFIG = """
listen_addresses = '127.0.0.1'
fsync = off
synchronous_commit = on
full_page_writes = off
shared_buffers = 16MB
max_connections = 40
"""


class PostgresServer:
    """A server that tests stop and start again, with its data."""

    def __init__(self, directory: Path) -> None:
        (self.port,) = free_ports(1)
        self.directory = directory
        self._data = directory / "data"

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def create(self) -> None:
        password = self.directory / "password"
        password.write_text(PASSWORD)
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "scram-sha-256", f"--pwfile={password}", "-N")
        with (self._data / "postgresql.conf").open("a") as config:
            config.write(f"{_CONFIG}port = {self.port}\nunix_socket_directories = '{self.directory}'\n")

    def start(self) -> None:
        log = self.directory / "postgres.log"
        self._run("pg_ctl", "-D", self._data, "-l", log, "-w", "-t", int(STARTED), "start")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-t", int(STARTED), "-m", mode, "stop")

    def start_as_standby(self) -> None:
        """Start as a standby of no primary, which `promote` ends."""
        (self._data / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-w", "-t", int(STARTED), "promote")

    def _run(self, program: str, *arguments: object) -> None:
        found = _program(program)
        command = [*_as_user(), str(found), *map(str, arguments)]
        done = subprocess.run(command, cwd=self.directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def _program(name: str) -> str:
    """A program of PostgreSQL, which Debian does not put on the PATH."""
    found = shutil.which(name) or next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)
    assert found is not None, f"the tests need {name} of PostgreSQL"
    return str(found)


def _as_user() -> list[str]:
    """PostgreSQL refuses to run as root: then it runs as the user that its package creates."""
    return [] if os.getuid() else ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]


@contextmanager
def postgres_running() -> Iterator[PostgresServer]:
    directory = Path(tempfile.mkdtemp(prefix="tocsin-postgres-"))
    if not os.getuid():
        user = pwd.getpwnam("postgres")
        os.chown(directory, user.pw_uid, user.pw_gid)
    try:
        server = PostgresServer(directory)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
