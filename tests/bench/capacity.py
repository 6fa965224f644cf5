"""What a connection, a publication and a node cost a node and Redis: constants of docs/capacity.md.

They are no ratios, so they depend on the machine. `make bench ARGS=capacity` prints them.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.bench import nodes
from tests.bench.http_back_end import BackEnd, as_json, publication
from tests.bench.subscribers import Subscriber
from tests.support.server import Server, run_server
from tests.support.tcp import tcp_connection
from tocsin_server.engine.redis import scripts
from tocsin_server.engine.redis.keys import Keys

CLIENTS = 2000
SECONDS = 8.0
PING_INTERVAL = 2.0
PUBLICATIONS = 3000
BATCH = 100
BACK_ENDS = 8
PACED = 1500
"""Publications that are sent one after the other, so that each is announced by itself."""

BATCHES = 150

RECEIVERS = 20
"""Bare connections to Redis' pub/sub in place of as many nodes."""

ROOMS = 50
RENEWALS = 2000
DATA = "x" * 126

PONG = b"\x81\x82\0\0\0\0{}"
PING = b"\x81\x02{}"

Constants = dict[str, float]


class AnsweringSubscriber(Subscriber):
    """A subscriber that answers pings."""

    def data_received(self, data: bytes) -> None:
        """Answer each ping with a pong."""
        if self.ready.done() and data.endswith(PING):
            self.transport.write(PONG)  # type: ignore[attr-defined]
        super().data_received(data)


async def subscribe(port: int, channels: Sequence[str]) -> list[Subscriber]:
    """One subscriber for each of these names, which may repeat."""
    loop = asyncio.get_running_loop()
    subscribers: list[Subscriber] = []
    for first in range(0, len(channels), 100):
        made = [
            (await loop.create_connection(partial(AnsweringSubscriber, "tocsin", name), "127.0.0.1", port))[1]
            for name in channels[first : first + 100]
        ]
        await asyncio.gather(*(one.ready for one in made))
        subscribers += made
    return subscribers


@asynccontextmanager
async def run_node(url: str, **sections: dict[str, Any]) -> AsyncIterator[Server]:
    """One `tocsin serve` with these sections besides those of `nodes.CONFIG`."""
    with tempfile.TemporaryDirectory() as folder:
        config = {**nodes.CONFIG, "engine": nodes.engine_at(url), **sections}
        running = run_server(config, Path(folder), "--log-level", "warning")
        server = await asyncio.to_thread(running.__enter__)
        try:
            yield server
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)


class RedisCost:
    """What Redis has spent."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def cpu(self) -> float:
        """CPU seconds."""
        figures = await self._client.info("cpu")
        return float(figures["used_cpu_user"]) + float(figures["used_cpu_sys"])

    async def output(self) -> int:
        """Bytes that Redis has sent."""
        return int((await self._client.info("stats"))["total_net_output_bytes"])

    async def memory(self) -> int:
        """Bytes that Redis uses."""
        return int((await self._client.info("memory"))["used_memory"])


async def ping() -> Constants:
    """The CPU of a node for a ping and its pong, less that of idle connections."""
    seconds: dict[float, float] = {}
    for interval in (PING_INTERVAL, 3600.0):
        client = {**nodes.CONFIG["client"], "ping_interval": interval, "pong_timeout": 1}
        async with run_node("memory://", engine={}, client=client) as node:
            subscribers = await subscribe(node.port, ["bench"] * CLIENTS)
            await asyncio.sleep(2)  # connections are pinged apart from each other
            before = nodes.cpu_seconds(node.process.pid)
            await asyncio.sleep(SECONDS)
            seconds[interval] = nodes.cpu_seconds(node.process.pid) - before
            for one in subscribers:
                one.transport.close()
    pings = CLIENTS * SECONDS / PING_INTERVAL
    return {"a ping and its pong, node": (seconds[PING_INTERVAL] - seconds[3600.0]) / pings * 1e6}


async def publishing(stack: AsyncExitStack, redis_url: str, redis: RedisCost) -> Constants:
    """The CPU of a node and of Redis for a publication with history by HTTP, alone and in a batch."""
    node = await stack.enter_async_context(run_node(redis_url))
    back_ends = [await stack.enter_async_context(BackEnd(node.port)) for _ in range(BACK_ENDS)]
    bodies = [as_json(publication(f"bench{number % 50}", DATA)) for number in range(BATCH)]
    commands = [{"publish": publication(f"bench{number % 50}", DATA)} for number in range(BATCH)]
    batch = as_json({"commands": commands, "parallel": True})

    async def send(back_end: BackEnd, method: str) -> None:
        for number in range(PUBLICATIONS // BACK_ENDS):
            if method == "publish":
                await back_end.post("publish", bodies[number % BATCH])
            else:
                await back_end.post("batch", batch)

    constants: Constants = {}
    for method, count in (("publish", 1), ("batch", BATCH)):
        users = back_ends if method == "publish" else back_ends[:1]
        at_node, at_redis = nodes.cpu_seconds(node.process.pid), await redis.cpu()
        await asyncio.gather(*(send(one, method) for one in users))
        total = PUBLICATIONS // BACK_ENDS * len(users) * count / 1e6
        which = "a publication by HTTP" if method == "publish" else "one of a batch of 100"
        constants[f"{which}, node"] = (nodes.cpu_seconds(node.process.pid) - at_node) / total
        constants[f"{which}, Redis"] = (await redis.cpu() - at_redis) / total
    return constants


async def announcing(stack: AsyncExitStack, redis_url: str, client: Redis, redis: RedisCost) -> Constants:
    """What it costs Redis to announce a publication to one more node, and what it costs that node."""
    here = await stack.enter_async_context(run_node(redis_url))
    there = await stack.enter_async_context(run_node(redis_url))
    (subscriber,) = await subscribe(there.port, ["announced"])
    back_end = await stack.enter_async_context(BackEnd(here.port))
    body = as_json(publication("announced", DATA))
    name = Keys("bench").pubsub_name("announced").encode()

    async def publish() -> tuple[float, float, float]:
        before = await redis.cpu(), await redis.output(), nodes.cpu_seconds(there.process.pid)
        for _ in range(PACED):
            await back_end.post("publish", body)
        after = await redis.cpu(), await redis.output(), nodes.cpu_seconds(there.process.pid)
        cpu, output, node = (end - start for end, start in zip(after, before, strict=True))
        return cpu / PACED, output / PACED, node / PACED

    idle = nodes.cpu_seconds(there.process.pid)
    started = time.monotonic()
    await asyncio.sleep(3)
    idle = (nodes.cpu_seconds(there.process.pid) - idle) / (time.monotonic() - started)
    started = time.monotonic()
    cpu, output, node = await publish()
    heartbeats = idle * (time.monotonic() - started) / PACED
    together = await receive_together(there, back_end)
    subscriber.transport.close()
    for _ in range(RECEIVERS):
        reader, writer = await stack.enter_async_context(
            tcp_connection(client.connection_pool.connection_kwargs["port"])
        )
        writer.write(b"SUBSCRIBE %b\r\n" % name)
        await reader.read(1000)
        stack.callback(asyncio.create_task(_read(reader)).cancel)
    many_cpu, many_output, _ = await publish()
    return {
        "an announcement and its delivery, node": (node - heartbeats) * 1e6,
        "one of 100 that come together, with its delivery, node": together,
        "an announcement, Redis": (many_cpu - cpu) / (RECEIVERS - 1) * 1e6,
        "bytes of an announcement": (many_output - output) / (RECEIVERS - 1),
    }


async def receive_together(node: Server, back_end: BackEnd) -> float:
    """The CPU of a node for each of 100 announcements that come together, of channels with one subscriber."""
    names = [f"together{number}" for number in range(BATCH)]
    subscribers = await subscribe(node.port, names)
    commands = [{"publish": publication(name, DATA)} for name in names]
    batch = as_json({"commands": commands, "parallel": True})
    before = nodes.cpu_seconds(node.process.pid)
    for _ in range(BATCHES):
        await back_end.post("batch", batch)
    seconds = nodes.cpu_seconds(node.process.pid) - before
    for one in subscribers:
        one.transport.close()
    return seconds / (BATCHES * BATCH) * 1e6


async def _read(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


async def presence(stack: AsyncExitStack, redis_url: str, redis: RedisCost) -> Constants:
    """What Redis spends on a subscription with presence that begins and ends; its memory meanwhile."""
    costs: dict[bool, float] = {}
    constants: Constants = {}
    rooms = [f"room{number % ROOMS}" for number in range(CLIENTS)]
    for has_presence in (False, True):
        channels = {**nodes.CONFIG["channels"], "presence": has_presence}
        node = await stack.enter_async_context(run_node(redis_url, channels=channels))
        before, memory = await redis.cpu(), await redis.memory()
        subscribers = await subscribe(node.port, rooms)
        if has_presence:
            constants["bytes of a presence entry"] = (await redis.memory() - memory) / CLIENTS
        for one in subscribers:
            one.transport.close()
        await asyncio.sleep(2)
        costs[has_presence] = await redis.cpu() - before
    return {"a presence entry, Redis": (costs[True] - costs[False]) / CLIENTS * 1e6, **constants}


async def new_channels(stack: AsyncExitStack, redis_url: str, redis: RedisCost) -> Constants:
    """What a client costs that connects, subscribes to a channel of its own with history, and leaves."""
    node = await stack.enter_async_context(run_node(redis_url))
    at_node, at_redis = nodes.cpu_seconds(node.process.pid), await redis.cpu()
    for one in await subscribe(node.port, [f"own{number}" for number in range(CLIENTS)]):
        one.transport.close()
    await asyncio.sleep(2)
    return {
        "connect, subscribe to a new channel and leave, node": (
            (nodes.cpu_seconds(node.process.pid) - at_node) / CLIENTS * 1e6
        ),
        "the same, Redis": (await redis.cpu() - at_redis) / CLIENTS * 1e6,
    }


async def leases(client: Redis, redis: RedisCost) -> Constants:
    """What Redis spends on the renewal of a lease, by the number of nodes."""
    renew = client.register_script(scripts.LEASE_RENEW.text)
    costs: dict[int, float] = {}
    for count in (1, 1001):
        key = f"leases{count}"
        for number in range(count):
            await client.hset(key, f"{number:032}.abcdef.{number:08}", 1000)
        await renew(keys=[key], args=[f"{0:032}.abcdef.{0:08}"])
        before = await redis.cpu()
        for _ in range(RENEWALS):
            await renew(keys=[key], args=[f"{0:032}.abcdef.{0:08}"])
        costs[count] = (await redis.cpu() - before) / RENEWALS * 1e6
    return {
        "a renewal of a lease, Redis": costs[1],
        "each lease that it reads, Redis": (costs[1001] - costs[1]) / 1000,
    }


async def heartbeats(stack: AsyncExitStack, redis_url: str, redis: RedisCost) -> Constants:
    """What a node without clients spends each second, and what Redis spends more because of it."""
    alone = await redis.cpu()
    await asyncio.sleep(SECONDS)
    alone = await redis.cpu() - alone
    node = await stack.enter_async_context(run_node(redis_url))
    await asyncio.sleep(3)  # what a start leaves to do
    at_node, at_redis, started = nodes.cpu_seconds(node.process.pid), await redis.cpu(), time.monotonic()
    await asyncio.sleep(SECONDS)
    seconds = time.monotonic() - started
    return {
        "a second without clients, node": (nodes.cpu_seconds(node.process.pid) - at_node) / seconds * 1e6,
        "a second without clients, Redis": (await redis.cpu() - at_redis - alone) / seconds * 1e6,
    }


async def constants() -> Constants:
    """Microseconds of CPU, and bytes where the name says so."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(nodes.run_redis())
        client = await stack.enter_async_context(Redis(port=server.port))
        redis = RedisCost(client)
        found = await ping()
        for measure in (heartbeats, publishing, presence, new_channels):
            async with AsyncExitStack() as own:
                found |= await measure(own, server.url, redis)
        async with AsyncExitStack() as own:
            found |= await announcing(own, server.url, client, redis)
        return found | await leases(client, redis)
