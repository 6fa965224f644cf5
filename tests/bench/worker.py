"""Helpers: processes of the benchmark that are asked and answer, a line of numbers each way."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator


class WorkerProcess:
    """A process of a module of this package, which answers each line with a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def call(self, *words: object) -> list[float]:
        """Say a line; the numbers of the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        return await self.numbers()

    async def numbers(self) -> list[float]:
        """The numbers of the next line."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark died")
        return [float(word) for word in line.split()]


@contextlib.asynccontextmanager
async def run_worker(module: str, *arguments: object) -> AsyncIterator[WorkerProcess]:
    """Run it; it has said its first line, which means that it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)), stdin=-1, stdout=-1
    )
    try:
        one = WorkerProcess(process)
        await one.numbers()
        yield one
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def requests() -> AsyncIterator[list[float]]:
    """The helper's side: what it is asked, until it may end. Says first that it is ready."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(flush=True)
    while line := await reader.readline():
        yield [float(word) for word in line.split()]
