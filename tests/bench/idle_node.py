"""What a node does about channels that nobody on it wants, measured between it and Redis."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import NamedTuple

from tests.bench import nodes
from tests.bench.worker import run_worker
from tests.support.tcp import tcp_connection, tcp_server

SECONDS = 6.0
"""Several times what comes every second anyway: canary, lease and clock."""

RATE = 1000

HEARTBEAT_BYTES = 1000
"""More than canary, lease and clock exchange in a second: one more or less may be measured."""


class Traffic(NamedTuple):
    """What one node exchanged with Redis, and the CPU seconds it took."""

    bytes: int
    cpu: float


class ByteCounter:
    """A way to Redis that counts the bytes of both directions."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.bytes = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        async with tcp_connection(self._target) as (there_reader, there):
            await asyncio.gather(self._copy(reader, there), self._copy(there_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            self.bytes += len(data)
            writer.write(data)
            await writer.drain()
        writer.close()


async def traffic_of_an_idle_node() -> tuple[Traffic, Traffic, int]:
    """Of a node without clients, while nothing is published and while another node's subscriber hears much.

    Third, the bytes of data that were published meanwhile.
    """
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.redis())
        gauge = ByteCounter(redis.port)
        port = await stack.enter_async_context(tcp_server(gauge.handle))
        busy = stack.enter_context(nodes.node(redis.url))
        # a thread waits for it to be ready, while this loop carries its bytes
        starting = nodes.node(f"redis://127.0.0.1:{port}")
        bystander = await asyncio.to_thread(starting.__enter__)
        try:
            hearing = await stack.enter_async_context(run_worker("hop_ends", "hear", "api", busy.port))
            publishing = await stack.enter_async_context(run_worker("hop_ends", "publish", "api", busy.port))

            async def measure(rate: int) -> Traffic:
                sent, cpu = gauge.bytes, nodes.cpu_seconds(bystander.process.pid)
                if rate:
                    count, _ = await publishing.call(SECONDS, rate)
                    await hearing.call(int(count))  # it was really published, and heard
                else:
                    await asyncio.sleep(SECONDS)
                return Traffic(gauge.bytes - sent, nodes.cpu_seconds(bystander.process.pid) - cpu)

            idle = await measure(0)
            return idle, await measure(RATE), int(SECONDS * RATE) * 128
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
