"""The traffic between Redis and a node for channels without a subscriber on that node."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import NamedTuple

from tests.bench import nodes
from tests.support.byte_counter import ByteCounter
from tests.support.tcp import tcp_server
from tests.support.worker import run_worker

SECONDS = 6.0
"""Several times the period of probe, lease and clock, which is a second."""

RATE = 1000

HEARTBEAT_BYTES = 1000
"""More than probe, lease and clock exchange in a second. A measurement may contain one period too many."""


class Traffic(NamedTuple):
    """The bytes that one node exchanged with Redis, and its CPU seconds."""

    bytes: int
    cpu: float


async def traffic_of_an_idle_node() -> tuple[Traffic, Traffic, int]:
    """The traffic of a node without clients: without publications, and with publications at another node.

    The third value is the number of bytes published in the second measurement.
    """
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.run_redis())
        counter = ByteCounter(redis.port)
        port = await stack.enter_async_context(tcp_server(counter.handle))
        busy = stack.enter_context(nodes.run_node(redis.url))
        # a thread waits until the node is ready, while this loop forwards its bytes
        starting = nodes.run_node(f"redis://127.0.0.1:{port}")
        idle = await asyncio.to_thread(starting.__enter__)
        try:
            receiver = await stack.enter_async_context(
                run_worker("tests.bench.hop_ends", "receive", "api", busy.port)
            )
            publisher = await stack.enter_async_context(
                run_worker("tests.bench.hop_ends", "publish", "api", busy.port)
            )

            async def measure(rate: int) -> Traffic:
                sent, cpu = counter.bytes, nodes.cpu_seconds(idle.process.pid)
                if rate:
                    count, *_ = await publisher.call(SECONDS, rate)
                    await receiver.call(int(count))  # proves that it was published and received
                else:
                    await asyncio.sleep(SECONDS)
                return Traffic(counter.bytes - sent, nodes.cpu_seconds(idle.process.pid) - cpu)

            without = await measure(0)
            return without, await measure(RATE), int(SECONDS * RATE) * 128
        finally:
            await asyncio.to_thread(starting.__exit__, None, None, None)
