"""CPU time of a node alone for publishing by HTTP into a channel with history: over Redis, and in memory.

Beside them: bare ASGI functions of which one sends the same command to Redis, and the other only answers.
"""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack

from tests.bench import nodes
from tests.bench.api_requests import ONE, PUBLISHES
from tests.bench.http_back_end import BackEnd, as_json, publication
from tests.bench.publishing import BATCH, CHANNELS, DATA
from tests.server.engine.redis.redis_server import free_ports
from tests.support.worker import run_worker

ROUNDS = 5

MANY = as_json(
    {
        "commands": [{"publish": publication(f"bench{n % CHANNELS}", DATA)} for n in range(BATCH)],
        "parallel": True,
    }
)

CONTENDERS = {
    "redis": ("redis", "publish", ONE, PUBLISHES, 1),
    "memory": ("memory", "publish", ONE, PUBLISHES, 1),
    "bare over Redis": ("bare_redis", "publish", ONE, PUBLISHES, 1),
    "bare": ("bare_http", "publish", ONE, PUBLISHES, 1),
    "redis batch": ("redis", "batch", MANY, 4 * PUBLISHES // BATCH, BATCH),
    "memory batch": ("memory", "batch", MANY, 4 * PUBLISHES // BATCH, BATCH),
}
"""Which server, the method, the body, the requests in a round and the publications in each, by contender.

A round has more publications in batches, so that it takes as long.
"""


async def cpu_by_engine() -> dict[str, float]:
    """The median CPU microseconds of one publication, by contender. They take turns."""
    figures: dict[str, list[float]] = {name: [] for name in CONTENDERS}
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
        back_ends = {name: await stack.enter_async_context(BackEnd(port)) for name, (_, port) in ends.items()}
        for round_number in range(ROUNDS + 1):
            for name, (engine, method, body, count, size) in CONTENDERS.items():
                process, _ = ends[engine]
                before = nodes.cpu_seconds(process)
                for _ in range(count):
                    await back_ends[engine].post(method, body)
                spent = nodes.cpu_seconds(process) - before
                if round_number:  # the first round warms up
                    figures[name].append(spent * 1e6 / (count * size))
    return {name: statistics.median(values) for name, values in figures.items()}
