"""One hop across nodes: from the call of a back end at one node to a subscriber of another."""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack
from typing import NamedTuple

from tests.bench import nodes
from tests.bench.worker import run_worker

RATE = 1000
"""Publications a second."""

SECONDS = 1.0
TURNS = 11
"""The contenders take turns, so that whatever else the machine does hits both."""


class Hop(NamedTuple):
    """Milliseconds, medians over the turns."""

    median: float
    p99: float


async def measure_hops() -> dict[str, Hop]:
    """By how it is published (see hop_ends).

    `bare` is heard by redis-py, the others by a subscriber of a node that nobody publishes through.
    """
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.redis())
        here, there = (stack.enter_context(nodes.node(redis.url)) for _ in range(2))
        ports = {
            "bare": (redis.port, redis.port),
            "node": (redis.port, there.port),
            "api": (here.port, there.port),
        }
        ends = {
            kind: [
                await stack.enter_async_context(run_worker("hop_ends", what, kind, port))
                for what, port in zip(("publish", "hear"), ports[kind], strict=True)
            ]
            for kind in ports
        }
        figures: dict[str, list[list[float]]] = {kind: [] for kind in ends}
        for turn in range(TURNS + 1):
            for kind, (publishing, hearing) in ends.items():
                count, _ = await publishing.call(SECONDS, RATE)
                ages = await hearing.call(int(count))
                if turn:  # the first one warms up
                    figures[kind].append(ages)
    return {kind: Hop(*map(statistics.median, zip(*ages, strict=True))) for kind, ages in figures.items()}
