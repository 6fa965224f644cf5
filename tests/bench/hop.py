"""One hop across nodes: from a publish call at one node to a subscriber of another node."""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack
from typing import NamedTuple

from tests.bench import nodes
from tests.support.worker import run_worker

RATE = 1000
"""Publications a second."""

SECONDS = 1.0
ROUNDS = 11
"""The contenders take turns: other load on the machine affects all of them."""


class Hop(NamedTuple):
    """Milliseconds, medians over the rounds."""

    median: float
    p99: float


async def measure_hops() -> dict[str, Hop]:
    """The hop of each kind of publisher (see hop_ends).

    `bare` is received by redis-py, the others by a subscriber of another node.
    """
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.run_redis())
        here, there = (stack.enter_context(nodes.run_node(redis.url)) for _ in range(2))
        ports = {
            "bare": (redis.port, redis.port),
            "node": (redis.port, there.port),
            "api": (here.port, there.port),
        }
        ends = {
            kind: [
                await stack.enter_async_context(run_worker("tests.bench.hop_ends", end, kind, port))
                for end, port in zip(("publish", "receive"), ports[kind], strict=True)
            ]
            for kind in ports
        }
        figures: dict[str, list[list[float]]] = {kind: [] for kind in ends}
        for round_number in range(ROUNDS + 1):
            for kind, (publisher, receiver) in ends.items():
                count, _ = await publisher.call(SECONDS, RATE)
                ages = await receiver.call(int(count))
                if round_number:  # the first round warms up
                    figures[kind].append(ages)
    return {kind: Hop(*map(statistics.median, zip(*ages, strict=True))) for kind, ages in figures.items()}
