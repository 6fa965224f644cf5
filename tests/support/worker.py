"""Worker processes of benchmarks and of the hostile suite. Requests and replies are lines of numbers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator


class WorkerProcess:
    """A process that runs a module, and replies to each line with a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    async def call(self, *values: object) -> list[float]:
        """Send a line. Returns the numbers of the reply."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, values)).encode() + b"\n")
        return await self.numbers()

    async def numbers(self) -> list[float]:
        """The numbers of the next line."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker process died")
        return [float(word) for word in line.split()]


@contextlib.asynccontextmanager
async def run_worker(module: str, *arguments: object) -> AsyncIterator[WorkerProcess]:
    """Start a worker, and wait for its first line: it is ready. Its input ends when the context does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *map(str, arguments)), stdin=-1, stdout=-1
    )
    try:
        worker = WorkerProcess(process)
        await worker.numbers()
        yield worker
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def requests() -> AsyncIterator[list[float]]:
    """The worker's side: print a first line, then yield each request until the input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(flush=True)
    while line := await reader.readline():
        yield [float(word) for word in line.split()]
