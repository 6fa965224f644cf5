"""One hop across nodes: from a publish call at one node to a subscriber of another node."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from tests.bench import nodes
from tests.server.engine.redis.redis_server import free_ports
from tests.support.worker import WorkerProcess, run_worker

RATE = 1000
"""Publications a second."""

LOW_RATE = 100
"""The same, where nothing is queued and no two publications share a batch: the hop is all waiting."""

SECONDS = 1.0
ROUNDS = 11
"""The contenders take turns: other load on the machine affects all of them."""

LOW_RATE_SECONDS = 2.0
LOW_RATE_ROUNDS = 5


class Hop(NamedTuple):
    """Milliseconds, medians over the rounds."""

    median: float
    p99: float


Ends = Mapping[str, Sequence[WorkerProcess]]
"""The publisher and the receiver of each kind (see hop_ends). `request` has no receiver."""


class Hops(NamedTuple):
    """The hop of each kind of publisher, at RATE and at LOW_RATE.

    `bare` is received by redis-py, the others by a subscriber of another node. `request` is no hop, but a
    request to a bare ASGI function and its response.
    """

    fast: Mapping[str, Hop]
    slow: Mapping[str, Hop]


async def measure_hops() -> Hops:
    """Measure at both rates."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.run_redis())
        here, there = (stack.enter_context(nodes.run_node(redis.url)) for _ in range(2))
        (http,) = free_ports(1)
        await stack.enter_async_context(run_worker("tests.bench.request_servers", "bare_http", http))
        ports = {
            "bare": (redis.port, redis.port),
            "node": (redis.port, there.port),
            "api": (here.port, there.port),
            "request": (http,),
        }
        ends = {
            kind: [
                await stack.enter_async_context(run_worker("tests.bench.hop_ends", end, kind, port))
                for end, port in zip(("publish", "receive"), of_kind, strict=False)
            ]
            for kind, of_kind in ports.items()
        }
        slow = {kind: ends[kind] for kind in ("bare", "api", "request")}
        fast = {kind: ends[kind] for kind in ("bare", "node", "api")}
        return Hops(
            await measure(fast, RATE, SECONDS, ROUNDS),
            await measure(slow, LOW_RATE, LOW_RATE_SECONDS, LOW_RATE_ROUNDS),
        )


async def measure(ends: Ends, rate: int, seconds: float, rounds: int) -> dict[str, Hop]:
    """Publish for so many seconds with each kind in turn."""
    figures: dict[str, list[Sequence[float]]] = {kind: [] for kind in ends}
    for round_number in range(rounds + 1):
        for kind, (publisher, *receivers) in ends.items():
            count, _, *figure = await publisher.call(seconds, rate)
            for receiver in receivers:
                figure = await receiver.call(int(count))
            if round_number:  # the first round warms up
                figures[kind].append(figure)
    return {kind: Hop(*map(statistics.median, zip(*ages, strict=True))) for kind, ages in figures.items()}
