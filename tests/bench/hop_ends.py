"""The two ends of a hop, each a process: a publisher with a steady rate, and a receiver.

    python -m tests.bench.hop_ends publish KIND PORT      request SECONDS RATE, reply: see below
    python -m tests.bench.hop_ends receive KIND PORT      request COUNT, reply: median and p99 in ms

KIND is `bare` (redis-py to and from the Redis at PORT), `api` (the HTTP API of the node at PORT, or a
WebSocket to it), `request` (the same HTTP request to the bare server at PORT) or `node` (an application with
a node mounted in it, over the Redis at PORT). A publication carries its time, by the monotonic clock that all
processes of a machine share. Each kind has its own channel.

A publisher replies with the number of publications, the seconds that they took, and the median and the p99 of
the milliseconds from a request to its response.
"""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import chain

import uvloop
from msgspec import Raw
from redis.asyncio import Redis

from tests.bench.http_back_end import BackEnd, as_json, publication
from tests.bench.nodes import CONFIG, engine_at
from tests.bench.subscribers import Subscriber
from tests.support.worker import requests
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.engine.broker import NewPublication
from tocsin_server.logging import configure_logging
from tocsin_server.node.node import Node

BACK_ENDS = 4
"""Back ends publish in turn: a late reply does not delay the next publication."""

PADDING = "x" * 100
STAMP = re.compile(rb"at (\d+\.\d+) ")

Publish = Callable[[str], Awaitable[object]]


def publication_now() -> str:
    """A publication of about 128 bytes, with its time."""
    return f"at {time.monotonic():.7f} {PADDING}"


def median_and_p99(values: Sequence[float]) -> tuple[float, float]:
    """The median, and what one of a hundred exceeds."""
    return statistics.median(values), statistics.quantiles(values, n=100)[98]


# ----------------------------------------------------------------------------------------------- publishing


async def bare_publisher(stack: AsyncExitStack, port: int) -> Publish:
    """Publishes with redis-py, over a connection of its own."""
    client = await stack.enter_async_context(Redis(port=port, single_connection_client=True))
    return lambda data: client.publish("bare", data)


async def api_publisher(stack: AsyncExitStack, port: int) -> Publish:
    """Publishes with the HTTP API, over a connection of its own."""
    back_end = await stack.enter_async_context(BackEnd(port))
    return lambda data: back_end.post("publish", as_json(publication("api", data)))


async def node_publisher(stack: AsyncExitStack, port: int) -> Publish:
    """Publishes with a node in this process, which has no connections."""
    settings = Settings.model_validate({**CONFIG, "engine": engine_at(f"redis://127.0.0.1:{port}")})
    node: Node = create_app(settings).state.node
    await stack.enter_async_context(node.running())
    return lambda data: node.operations.publish("node", NewPublication(Raw(as_json(data))))


async def publishers_of(kind: str, stack: AsyncExitStack, port: int) -> list[Publish]:
    """As many publishers as take turns. An application has only one node."""
    if kind == "node":
        return [await node_publisher(stack, port)] * BACK_ENDS
    make = bare_publisher if kind == "bare" else api_publisher
    return [await make(stack, port) for _ in range(BACK_ENDS)]


async def publish_on_schedule(publish: Publish, moments: Iterator[float]) -> list[float]:
    """Publish at each moment, or as soon as the previous publish is done. Returns how many ms each took."""
    durations: list[float] = []
    for moment in moments:
        await asyncio.sleep(moment - time.monotonic())
        started = time.monotonic()
        await publish(publication_now())
        durations.append((time.monotonic() - started) * 1e3)
    return durations


async def publish_main(kind: str, port: int) -> None:
    async with AsyncExitStack() as stack:
        publishers = await publishers_of(kind, stack, port)
        async for seconds, rate in requests():
            count = int(seconds * rate)
            start = time.monotonic() + 0.05
            moments = (start + number / rate for number in range(count))
            durations = await asyncio.gather(*(publish_on_schedule(one, moments) for one in publishers))
            print(count, time.monotonic() - start, *median_and_p99(list(chain(*durations))), flush=True)


# ------------------------------------------------------------------------------------------------ receiving


class Latencies:
    """The ages of publications when they were received, in milliseconds."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def receive(self, data: bytes) -> None:
        """Take the publications in these bytes."""
        now = time.monotonic()
        self.all += [(now - float(stamp)) * 1e3 for stamp in STAMP.findall(data)]

    async def report(self, count: int) -> str:
        """Wait for so many publications. Returns their median and p99, and starts again."""
        async with asyncio.timeout(30):
            while len(self.all) < count:
                await asyncio.sleep(0.01)
        ages, self.all = self.all, []
        return " ".join(map(str, median_and_p99(ages)))


async def receive_bare(port: int, latencies: Latencies) -> None:
    """Receive with redis-py's pub/sub, and a callback for each message."""
    async with Redis(port=port) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(bare=lambda message: latencies.receive(message["data"]))
        await pubsub.run()


class MeasuringSubscriber(Subscriber):
    """A subscriber that measures the age of publications."""

    def __init__(self, channel: str, latencies: Latencies) -> None:
        super().__init__("tocsin", channel)
        self.latencies = latencies

    def data_received(self, data: bytes) -> None:
        """Take publications. Their frames are small and arrive whole."""
        if self.ready.done():
            self.latencies.receive(data)
        else:
            super().data_received(data)


async def receive_from_node(channel: str, port: int, latencies: Latencies) -> None:
    """Receive over a WebSocket."""
    loop = asyncio.get_running_loop()
    _, subscriber = await loop.create_connection(
        lambda: MeasuringSubscriber(channel, latencies), "127.0.0.1", port
    )
    await subscriber.ready


async def receive_main(kind: str, port: int) -> None:
    latencies = Latencies()
    receiving = asyncio.ensure_future(
        receive_bare(port, latencies) if kind == "bare" else receive_from_node(kind, port, latencies)
    )
    await asyncio.wait([receiving], timeout=1)
    async for (count,) in requests():
        print(await latencies.report(int(count)), flush=True)
    receiving.cancel()
    await asyncio.wait([receiving])


if __name__ == "__main__":
    configure_logging("warning")
    uvloop.run((publish_main if sys.argv[1] == "publish" else receive_main)(sys.argv[2], int(sys.argv[3])))
