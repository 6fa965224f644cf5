"""What it costs a node, and Redis, that 5,000 clients of another node return to it at once.

python -m tests.bench.crowd PORT REDIS_URL    request anything, reply: CPU seconds so far
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import NamedTuple

import uvloop
from websockets.asyncio import client as websockets_client

from tests.bench import nodes
from tests.bench.http_back_end import BackEnd, as_json, publication
from tests.bench.returning_clients import PUBLICATIONS, channels_of
from tests.server.engine.redis.redis_server import free_ports
from tests.support.tcp import HOST
from tests.support.tokens import SECRET, connection_token
from tests.support.worker import WorkerProcess, requests, run_worker
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.logging import configure_logging
from tocsin_server.serving.server import serving

CLIENTS = 5000
PROCESSES = 2
ROUNDS = 2
"""Rounds. In each, the node works for several seconds, so that none is needed to warm up."""

BATCH = 1000
PING_PAUSE_SECONDS = 0.01

HISTORY = {
    "history_size": 100,
    "history_ttl": "600s",
    "force_recovery": True,
    "allow_subscribe_for_client": True,
}
CONFIG = {
    "client": {"token_hmac_secret": SECRET},
    "api": {"insecure": True},
    "limits": {"connect_rate": 0},
    "namespaces": {
        "user": HISTORY,
        "news": HISTORY,
        "room": {**HISTORY, "presence": True, "join_leave": True, "force_push_join_leave": True},
    },
}
"""A channel for each user, rooms that show who is there, and one channel for all."""


class Crowd(NamedTuple):
    """What a crowd costs, and how long others wait meanwhile."""

    node_us: float
    """CPU microseconds of the node per client that connects and recovers."""
    bare_us: float
    """The same of a bare WebSocket server that answers as many messages."""
    redis_us: float
    """CPU microseconds of Redis per client."""
    leave_us: float
    """CPU microseconds of the node per client that leaves."""
    ping_ms: float
    """The median round trip of another client's ping meanwhile, in milliseconds."""
    longest_ping_ms: float


async def main(port: int, redis_url: str) -> None:
    """Serve, and tell the CPU seconds when requested."""
    settings = Settings.model_validate({**CONFIG, "engine": nodes.engine_at(redis_url)})
    app, options = create_app(settings), settings.server.model_copy(update={"port": port})
    async with serving(app, options):
        async for _ in requests():
            print(time.process_time(), flush=True)


async def cpu_per_returning_client() -> Crowd:
    """The medians of two rounds, in which node and bare server take turns."""
    figures: list[tuple[float, ...]] = []
    pings: list[float] = []
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.run_redis())
        port, bare_port = free_ports(2)
        node = await stack.enter_async_context(run_worker("tests.bench.crowd", port, redis.url))
        bare = await stack.enter_async_context(
            run_worker("tests.bench.request_servers", "bare_websocket", bare_port)
        )
        epoch = await _publish(port)
        crowd = await stack.enter_async_context(_clients("tocsin", port, epoch))
        others = await stack.enter_async_context(_clients("bare", bare_port, epoch))
        for _ in range(ROUNDS):
            start, redis_start = await _cpu_seconds(node), nodes.cpu_seconds(redis.pid)
            async with _pinging(port, pings):
                await _all(crowd, connect=True)
            came, redis_came = await _cpu_seconds(node), nodes.cpu_seconds(redis.pid)
            await _all(crowd, connect=False)
            bare_start = await _cpu_seconds(bare)
            await _all(others, connect=True)
            bare_came = await _cpu_seconds(bare)
            await _all(others, connect=False)
            left = await _cpu_seconds(node)  # it has unsubscribed meanwhile
            figures.append((came - start, bare_came - bare_start, redis_came - redis_start, left - came))
    node_us, bare_us, redis_us, leave_us = (
        statistics.median(values) * 1e6 / CLIENTS for values in zip(*figures, strict=True)
    )
    return Crowd(node_us, bare_us, redis_us, leave_us, statistics.median(pings), max(pings))


@contextlib.asynccontextmanager
async def _clients(kind: str, port: int, epoch: str) -> AsyncIterator[list[WorkerProcess]]:
    count = CLIENTS // PROCESSES
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                run_worker("tests.bench.returning_clients", kind, port, number * count, count, epoch)
            )
            for number in range(PROCESSES)
        ]


async def _cpu_seconds(server: WorkerProcess) -> float:
    (seconds,) = await server.call(0)
    return seconds


async def _all(clients: list[WorkerProcess], *, connect: bool) -> None:
    """Let all clients connect or leave."""
    await asyncio.gather(*(worker.call(int(connect)) for worker in clients))


async def _publish(port: int) -> str:
    """Publish into all channels. Returns the epoch, which all new histories share."""
    names = {name for number in range(CLIENTS) for name in channels_of(number)}
    publishes = [{"publish": publication(name, "x" * 126)} for name in names for _ in range(PUBLICATIONS)]
    answer = b""
    async with BackEnd(port) as back_end:
        for first in range(0, len(publishes), BATCH):
            answer = await back_end.post(
                "batch", as_json({"commands": publishes[first : first + BATCH], "parallel": True})
            )
    epochs = {reply["publish"]["epoch"] for reply in json.loads(answer)["replies"]}
    assert len(epochs) == 1
    return str(epochs.pop())


@contextlib.asynccontextmanager
async def _pinging(port: int, figures: list[float]) -> AsyncIterator[None]:
    """Within this context, a client that was there before sends pings, and notes how long each takes."""
    async with websockets_client.connect(f"ws://{HOST}:{port}/connection/websocket") as socket:
        await socket.send(json.dumps({"id": 1, "connect": {"token": connection_token("another")}}))
        await socket.recv()

        async def ping() -> None:
            while True:
                started = time.perf_counter()
                await (await socket.ping())
                figures.append((time.perf_counter() - started) * 1e3)
                await asyncio.sleep(PING_PAUSE_SECONDS)

        pinging = asyncio.create_task(ping())
        try:
            yield
        finally:
            pinging.cancel()


if __name__ == "__main__":
    configure_logging("warning")
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))
