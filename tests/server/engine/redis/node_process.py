"""A node in its own process, which a test can kill or freeze: `python node_process.py URL PREFIX UID`.

It prints `ready`, and then executes the lines that it reads: `add CHANNEL CLIENT USER [announced]`,
`remove CHANNEL CLIENT`, and `connect USER CLIENT`, with a limit of 2 connections. After each it prints
`done`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

ANONYMOUS = "-"
"""The anonymous user, as a word of a line."""

ROOT = Path(__file__).parents[4]


class NodeProcess:
    """The process, as the test controls it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def add(self, channel: str, client: str, user: str, *, is_announced: bool = True) -> None:
        await self.do("add", channel, client, user, *(["announced"] if is_announced else []))

    async def do(self, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(words).encode() + b"\n")
        assert await self.line() == "done"

    async def line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self) -> None:
        if self._process.returncode is None:
            self.signal(signal.SIGKILL)
        await self._process.communicate()


@contextlib.asynccontextmanager
async def node_process_running(url: str, prefix: str, uid: str) -> AsyncIterator[NodeProcess]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.server.engine.redis.node_process", url, prefix, uid),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    node = NodeProcess(process)
    try:
        assert await node.line() == "ready"
        yield node
    finally:
        await node.end()


async def _run(url: str, prefix: str, uid: str) -> None:
    import structlog  # noqa: PLC0415 - only the process needs it

    from tests.server.engine.recording_handler import RecordingHandler  # noqa: PLC0415
    from tests.server.engine.redis.intervals import shorten_leases  # noqa: PLC0415
    from tocsin_server.engine.redis.connections.address import parse_address  # noqa: PLC0415
    from tocsin_server.engine.redis.engine import RedisEngine  # noqa: PLC0415
    from tocsin_server.protocol.messages import ClientInfo  # noqa: PLC0415

    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    shorten_leases(setattr)
    engine = RedisEngine(parse_address(url), prefix)
    await engine.start(RecordingHandler(uid))
    print("ready", flush=True)  # noqa: T201 - the test reads it
    while line := await asyncio.to_thread(sys.stdin.readline):
        match line.split():
            case ["add", channel, client, user, *announced]:
                await engine.presence.add(
                    channel, ClientInfo(user.removeprefix(ANONYMOUS), client), bool(announced)
                )
            case ["connect", user, client]:
                await engine.users.add(user, client, 2)
            case ["remove", channel, client]:
                await engine.presence.remove(channel, client)
        print("done", flush=True)  # noqa: T201 - the test reads it
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))
