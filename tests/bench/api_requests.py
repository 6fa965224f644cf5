"""CPU time of publishing by HTTP into a history in memory, beside an ASGI function that only answers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack

from tests.bench.http_back_end import BackEnd, as_json, publication
from tests.bench.publishing import BATCH, DATA
from tests.server.engine.redis.redis_server import free_ports
from tests.support.configs import API_KEY
from tests.support.worker import run_worker

PUBLISHES = 2000
"""Publishes of each contender in one round."""

ROUNDS = 5

ONE = as_json(publication("bench", DATA))
BATCHED = as_json({"commands": [{"publish": publication("bench", DATA)}] * BATCH, "parallel": True})

CONTENDERS = {
    "bare": ("bare_http", "publish", ONE, 1),
    "single": ("memory_node", "publish", ONE, 1),
    "batch": ("memory_node", "batch", BATCHED, BATCH),
}
"""The server, the method, the body and the publications in it, by contender."""


async def cpu_per_publish() -> dict[str, float]:
    """The median CPU microseconds of one publication, by contender. They take turns."""
    figures: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    names: Sequence[str] = sorted({server for server, *_ in CONTENDERS.values()})
    async with AsyncExitStack() as stack:
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        servers = {
            name: await stack.enter_async_context(run_worker("tests.bench.request_servers", name, port))
            for name, port in ports.items()
        }
        back_ends = {
            name: await stack.enter_async_context(BackEnd(port, API_KEY)) for name, port in ports.items()
        }
        for round_number in range(ROUNDS + 1):
            for name, (server, method, body, size) in CONTENDERS.items():
                (before,) = await servers[server].call(0)
                for _ in range(PUBLISHES // size):
                    await back_ends[server].post(method, body)
                (after,) = await servers[server].call(0)
                if round_number:  # the first round warms up
                    figures[name].append((after - before) * 1e6 / (PUBLISHES // size * size))
    return {name: statistics.median(values) for name, values in figures.items()}
