"""What a node does about channels that nobody on it wants, measured between it and Redis."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import NamedTuple

from tests.bench import nodes
from tests.bench.helpers import helper
from tests.support.proxies import accepting, connecting

SECONDS = 6.0
"""Several times what comes every second anyway: canary, lease and clock."""

RATE = 1000

HEARTBEAT_BYTES = 1000
"""More than canary, lease and clock exchange in a second: one more or less may be measured."""


class Work(NamedTuple):
    """What one node exchanged with Redis, and the CPU seconds it took."""

    bytes: int
    cpu: float


class Gauge:
    """A way to Redis that counts the bytes of both directions."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.bytes = 0

    async def lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        async with connecting(self._target) as (there_reader, there):
            await asyncio.gather(self._copy(reader, there), self._copy(there_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.bytes += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()


async def work_of_a_bystander() -> tuple[Work, Work, int]:
    """Of a node without clients, while nothing is published and while another node's subscriber hears much.

    Third, the bytes of data that were published meanwhile.
    """
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.redis())
        gauge = Gauge(redis.port)
        port = await stack.enter_async_context(accepting(gauge.lead))
        busy = stack.enter_context(nodes.node(redis.url))
        # a thread waits for it to be ready, while this loop carries its bytes
        starting = nodes.node(f"redis://127.0.0.1:{port}")
        bystander = await asyncio.to_thread(starting.__enter__)
        try:
            hearing = await stack.enter_async_context(helper("hop_ends", "hear", "api", busy.port))
            publishing = await stack.enter_async_context(helper("hop_ends", "publish", "api", busy.port))

            async def measure(rate: int) -> Work:
                sent, cpu = gauge.bytes, nodes.cpu_seconds(bystander.process.pid)
                if rate:
                    count, _ = await publishing.ask(SECONDS, rate)
                    await hearing.ask(int(count))  # it was really published, and heard
                else:
                    await asyncio.sleep(SECONDS)
                return Work(gauge.bytes - sent, nodes.cpu_seconds(bystander.process.pid) - cpu)

            idle = await measure(0)
            return idle, await measure(RATE), int(SECONDS * RATE) * 128
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
