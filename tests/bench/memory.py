"""Resident memory per idle connection, each contender in a new process."""

from __future__ import annotations

import asyncio
import gc
import sys

import psutil
import uvloop

from tests.bench import servers
from tocsin_server.logging import configure_logging

WARM_UP = 200
"""Connections before the measurement: code and buffers that are loaded once do not count."""


async def main(name: str, count: int) -> None:
    """Print by how many bytes this process grew for each connection."""
    servers.raise_file_limit()
    configure_logging("warning")
    contender = servers.CONTENDERS[name]
    async with contender(WARM_UP):
        gc.collect()
        before = psutil.Process().memory_info().rss
        async with contender(count):
            gc.collect()
            print((psutil.Process().memory_info().rss - before) / count)


async def bytes_per_connection(name: str, count: int) -> float:
    """The memory of one idle connection in the process of its contender."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.memory", name, str(count)), stdout=-1
    )
    output, _ = await process.communicate()
    return float(output)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
