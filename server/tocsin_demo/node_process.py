"""One node as the supervisor sees it: its name, its proxy to Redis, and its current process."""

import asyncio
import contextlib
import signal
import sys
import time
from asyncio import StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import cast

import msgspec

from tocsin_demo.ipc import LINE_LIMIT_BYTES, Condition, NodeConfig, NodeReport, NodeStatus, encode_line
from tocsin_demo.redis_proxy import RedisProxy

STOP_SECONDS = 15.0
"""A node that takes longer to end is killed."""


class NodeProcess:
    """Exists as long as the supervisor runs; its processes come and go.

    The mutable state is every public attribute; only this class and the supervisor change it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.proxy: RedisProxy | None = None
        self.restore_timer: asyncio.TimerHandle | None = None
        self.process: Process | None = None
        self.condition: Condition = "starting"
        self.is_stop_requested = False
        """Whether the supervisor has signalled the current process to end."""
        self.address = ""
        self.report: NodeReport | None = None
        self.started_at = self.deaf_until = self.lease_expires_by = self.restarts_at = 0.0

    @property
    def status(self) -> NodeStatus:
        """The status that the nodes and the page are given."""
        return NodeStatus(
            self.name,
            self.condition,
            0 if self.process is None else self.process.pid,
            self.address,
            self.started_at,
            self.report,
            self.deaf_until,
            self.lease_expires_by,
            self.restarts_at,
        )

    def send(self, message: msgspec.Struct) -> None:
        """Write a message to the process's standard input.

        Does nothing if the pipe is closed: a dead process's pipe may close before its exit is known.
        """
        if self.process is not None and not _input(self.process).is_closing():
            _input(self.process).write(encode_line(message))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it has not ended."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    @contextlib.asynccontextmanager
    async def running(self, config: NodeConfig) -> AsyncIterator[Process]:
        """Start a process under this name. On exit, stop it and wait for its end."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tocsin_demo.node_main"),
            stdin=PIPE,
            stdout=PIPE,
            limit=LINE_LIMIT_BYTES,
            start_new_session=True,  # Ctrl-C reaches the supervisor only, which stops its nodes
        )
        self.process, self.address, self.report = process, "", None
        self.condition, self.is_stop_requested = "starting", False
        self.started_at, self.restarts_at = milliseconds(), 0
        try:
            self.send(config)
            yield process
        finally:
            await self._stop(process)

    async def _stop(self, process: Process) -> None:
        """Send SIGTERM and wait. Kill the process if it takes too long, or if this task is cancelled.

        Its pipe stays open until then: at its end a node drains too, and would take the signal for a second
        one, which ends the drain.
        """
        self.signal(signal.SIGTERM)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
        finally:
            self.signal(signal.SIGKILL)
            _input(process).close()


def milliseconds(seconds_from_now: float = 0) -> float:
    """Return a time in milliseconds since 1970."""
    return round((time.time() + seconds_from_now) * 1000, 1)


def _input(process: Process) -> StreamWriter:
    return cast(StreamWriter, process.stdin)
