"""CPU time of a node alone for publishing by HTTP into a channel with history: over Redis, and in memory.

Beside them: bare ASGI functions of which one sends the same command to Redis, and the other only answers.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.bench import nodes
from tests.bench.api_requests import ONE
from tests.bench.http_back_end import BackEnd, as_json, publication
from tests.bench.publishing import BATCH, CHANNELS, DATA
from tests.bench.turns import Turns
from tests.server.engine.redis.redis_server import free_ports
from tests.support.worker import run_worker

PUBLISHES = 400
"""Publishes of each contender in one round. In batches it has four times as many: that takes as long."""

ROUNDS = 15
"""Rounds with the same processes."""

PROCESSES = 3
"""How many processes of each server are started, one after the other."""

BACK_ENDS = 8
"""Back ends that publish at once, each as soon as its last publication is stored."""

MANY = as_json(
    {
        "commands": [{"publish": publication(f"bench{n % CHANNELS}", DATA)} for n in range(BATCH)],
        "parallel": True,
    }
)

SERVERS = {"redis": "redis", "memory": "memory", "bare over Redis": "bare_redis", "bare": "bare_http"}

CONTENDERS = {
    **{name: (server, 1, "publish", ONE, PUBLISHES, 1) for name, server in SERVERS.items()},
    **{
        f"{name}, many": (server, BACK_ENDS, "publish", ONE, PUBLISHES // BACK_ENDS, 1)
        for name, server in SERVERS.items()
    },
    "redis, batch": ("redis", 1, "batch", MANY, 4 * PUBLISHES // BATCH, BATCH),
    "memory, batch": ("memory", 1, "batch", MANY, 4 * PUBLISHES // BATCH, BATCH),
}
"""By contender: the server, the back ends, the method, the body.

Then the requests of each back end in a round, and the publications in each request.
"""


async def cpu_by_engine() -> Turns:
    """The CPU microseconds of one publication, by contender."""
    turns = Turns()
    for _ in range(PROCESSES):
        await _take_turns(turns)
    return turns


async def _take_turns(turns: Turns) -> None:
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.run_redis())
        nodes_by_engine = {
            "redis": stack.enter_context(nodes.run_node(redis.url)),
            "memory": stack.enter_context(nodes.run_node("")),
        }
        ends = {engine: (node.process.pid, node.port) for engine, node in nodes_by_engine.items()}
        for name, ports in (("bare_http", ()), ("bare_redis", (redis.port,))):
            (port,) = free_ports(1)
            worker = run_worker("tests.bench.request_servers", name, port, *ports)
            ends[name] = ((await stack.enter_async_context(worker)).pid, port)
        back_ends = {
            name: [await stack.enter_async_context(BackEnd(port)) for _ in range(BACK_ENDS)]
            for name, (_, port) in ends.items()
        }

        async def turn(name: str) -> float:
            server, at_once, method, body, count, size = CONTENDERS[name]
            process, _ = ends[server]
            before = nodes.cpu_seconds(process)
            await asyncio.gather(
                *(_post(back_end, method, body, count) for back_end in back_ends[server][:at_once])
            )
            return (nodes.cpu_seconds(process) - before) * 1e6 / (at_once * count * size)

        await turns.take(list(CONTENDERS), turn, ROUNDS, warm_up=4)


async def _post(back_end: BackEnd, method: str, body: bytes, count: int) -> None:
    for _ in range(count):
        await back_end.post(method, body)
