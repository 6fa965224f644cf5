"""Several workers on one port: how evenly they share connections, and what a publication costs Redis.

The clients are in this process. The connect reply names the worker that has the connection.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.bench import nodes
from tests.bench.http_back_end import BackEnd, as_json, publication
from tests.bench.subscribers import Subscriber
from tests.support.byte_counter import ByteCounter
from tests.support.server import Server, run_server
from tests.support.tcp import tcp_server

WORKERS = 4
CONNECTIONS = 2000
"""In each measurement: 500 for each worker."""

PUBLICATIONS = 200
PAYLOAD = "announced-" + "x" * 118
"""128 bytes, as in the other figures."""

NODE = re.compile(rb'"node":"([^"]+)"')


class CountedSubscriber(Subscriber):
    """A subscriber that knows which worker has its connection, and counts what it receives."""

    def __init__(self, channel: str) -> None:
        super().__init__("tocsin", channel)
        self.worker = b""
        self.is_open = True
        self.received = 0

    def data_received(self, data: bytes) -> None:
        if not self.worker and (found := NODE.search(data)):
            self.worker = found[1]
        self.received += data.count(b'"pub"')
        super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False


class Clients:
    """Subscribers of a pool of workers."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.all: list[CountedSubscriber] = []

    async def connect(self, channel: str = "bench") -> CountedSubscriber:
        """Open one more connection, and wait until it is subscribed."""
        loop = asyncio.get_running_loop()
        _, subscriber = await loop.create_connection(
            lambda: CountedSubscriber(channel), "127.0.0.1", self._port
        )
        self.all.append(subscriber)
        await subscriber.ready
        return subscriber

    async def crowd(self, count: int) -> None:
        """Open so many connections at once."""
        await asyncio.gather(*(self.connect() for _ in range(count)))

    def counts(self) -> Counter[bytes]:
        """The open connections of each worker."""
        return Counter(one.worker for one in self.all if one.is_open)

    def imbalance(self) -> float:
        """The most connections of a worker, as a multiple of the mean."""
        counts = self.counts()
        return max(counts.values()) / (counts.total() / WORKERS)

    async def close(self) -> None:
        """Close all connections, and wait until the workers know it."""
        for one in self.all:
            one.transport.close()
        self.all = []
        await asyncio.sleep(1)


class Imbalance(NamedTuple):
    """The most connections of a worker, as a multiple of the mean."""

    crowd: float
    one_by_one: float
    replaced: float
    """After a worker was replaced and as many clients have connected as it had."""


class Announcements(NamedTuple):
    """What one publication to a channel with subscribers at every worker costs Redis."""

    messages: float
    """Messages that Redis sends."""
    bytes: float
    """Bytes that Redis sends and receives, heartbeats included."""
    elsewhere: float
    """Messages if only one worker has subscribers."""


async def imbalance() -> Imbalance:
    """How evenly workers share connections."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.run_redis())
        server = await started(stack, redis.url)
        clients = Clients(server.port)
        await clients.crowd(CONNECTIONS)
        crowd = clients.imbalance()
        await clients.close()
        for _ in range(CONNECTIONS):
            await clients.connect()
        one_by_one = clients.imbalance()
        lost = await replace_a_worker(server, clients)
        await clients.crowd(lost)
        return Imbalance(crowd, one_by_one, clients.imbalance())


async def replace_a_worker(server: Server, clients: Clients) -> int:
    """Kill one, and wait until another has taken its place. Returns how many connections it had."""
    before = clients.counts()
    os.kill(psutil.Process(server.process.pid).children()[0].pid, signal.SIGKILL)
    while len(left := clients.counts()) == WORKERS:
        await asyncio.sleep(0.05)
    (name,) = before.keys() - left.keys()
    while (probe := await clients.connect()).worker != name:
        probe.transport.close()
        await asyncio.sleep(0.2)
    return before[name] - 1


async def announcements() -> Announcements:
    """What a publication costs Redis."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(nodes.run_redis())
        counter = ByteCounter(redis.port, PAYLOAD.encode())
        port = await stack.enter_async_context(tcp_server(counter.handle))
        server = await started(stack, f"redis://127.0.0.1:{port}")
        clients = Clients(server.port)
        while len(clients.counts()) < WORKERS:
            await clients.crowd(100)
        alone = await clients.connect("alone")
        back_end = await stack.enter_async_context(BackEnd(server.port))

        async def publish(channel: str, receivers: list[CountedSubscriber]) -> tuple[float, float]:
            marked, sent = counter.marked, counter.bytes
            for one in receivers:
                one.received = 0
            for _ in range(PUBLICATIONS):
                await back_end.post("publish", as_json(publication(channel, PAYLOAD)))
            while any(one.received < PUBLICATIONS for one in receivers):
                await asyncio.sleep(0.01)
            return (counter.marked - marked) / PUBLICATIONS, (counter.bytes - sent) / PUBLICATIONS

        messages, size = await publish("bench", clients.all[:-1])
        return Announcements(messages, size, (await publish("alone", [alone]))[0])


async def started(stack: AsyncExitStack, redis_url: str) -> Server:
    """A pool of workers. Threads start and end it: this loop may forward its bytes in the meantime."""
    config = {**nodes.CONFIG, "engine": nodes.engine_at(redis_url)}
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    running = run_server(config, Path(folder), "--workers", str(WORKERS), "--log-level", "warning")
    server = await asyncio.to_thread(running.__enter__)
    stack.push_async_callback(asyncio.to_thread, running.__exit__, None, None, None)
    return server
