"""CPU time of publishing by HTTP into a history in memory, beside an ASGI function that only answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack

from tests.bench.http_back_end import BackEnd, as_json, publication
from tests.bench.nodes import cpu_seconds
from tests.bench.publishing import BATCH, DATA
from tests.bench.turns import Turns
from tests.server.engine.redis.redis_server import free_ports
from tests.support.configs import API_KEY
from tests.support.worker import run_worker

PUBLISHES = 400
"""Publishes of each contender in one round: some 20 ms."""

ROUNDS = 20
"""Rounds with the same processes."""

PROCESSES = 5
"""How many processes of each server are started, one after the other."""

ONE = as_json(publication("bench", DATA))
BATCHED = as_json({"commands": [{"publish": publication("bench", DATA)}] * BATCH, "parallel": True})

CONTENDERS = {
    "bare": ("bare_http", "publish", ONE, 1),
    "single": ("memory_node", "publish", ONE, 1),
    "batch": ("memory_node", "batch", BATCHED, BATCH),
}
"""The server, the method, the body and the publications in it, by contender."""


async def cpu_per_publish() -> Turns:
    """The CPU microseconds of one publication, by contender."""
    turns = Turns()
    for _ in range(PROCESSES):
        await _take_turns(turns)
    return turns


async def _take_turns(turns: Turns) -> None:
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

        async def turn(name: str) -> float:
            server, method, body, size = CONTENDERS[name]
            before = cpu_seconds(servers[server].pid)
            for _ in range(PUBLISHES // size):
                await back_ends[server].post(method, body)
            return (cpu_seconds(servers[server].pid) - before) * 1e6 / (PUBLISHES // size * size)

        await turns.take(list(CONTENDERS), turn, ROUNDS, warm_up=4)
