"""The two ends of a hop, each a process: what publishes at a steady rate, and what hears.

    python -m tests.bench.hop_ends publish KIND PORT      asked SECONDS RATE, answers how many it published
    python -m tests.bench.hop_ends hear KIND PORT         asked COUNT, answers its median and p99 in ms

KIND is `bare` (redis-py to and from the Redis at PORT), `api` (the HTTP API of the node at PORT, or a
WebSocket to it) or `node` (an application with a node mounted in it, over the Redis at PORT). A publication
says when it was made, by the clock that all processes of a machine share. Its channel is called as KIND is,
so that nobody hears it but who is asked.
"""

from __future__ import annotations

import asyncio
import logging
import re
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import structlog
import uvloop
from msgspec import Raw
from redis.asyncio import Redis

from tests.bench.http_back_end import BackEnd, as_json, publication
from tests.bench.nodes import CONFIG, engine_at
from tests.bench.subscribers import Subscriber
from tests.bench.worker import requests
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.engine.broker import NewPublication
from tocsin_server.node.node import Node

BACK_ENDS = 4
"""Publish in turn, so that an answer that is late does not hold the next publication up."""

PADDING = "x" * 100
STAMP = re.compile(rb"at (\d+\.\d+) ")

Publish = Callable[[str], Awaitable[object]]


def publication_now() -> str:
    """About 128 bytes."""
    return f"at {time.monotonic():.7f} {PADDING}"


# ------------------------------------------------------------------------------------------------ publishing


async def bare_publisher(stack: AsyncExitStack, port: int) -> Publish:
    """redis-py, with a connection of its own."""
    client = await stack.enter_async_context(Redis(port=port, single_connection_client=True))
    return lambda data: client.publish("bare", data)


async def api_publisher(stack: AsyncExitStack, port: int) -> Publish:
    """The HTTP API, with a connection of its own."""
    back_end = await stack.enter_async_context(BackEnd(port))
    return lambda data: back_end.post("publish", as_json(publication("api", data)))


async def node_publisher(stack: AsyncExitStack, port: int) -> Publish:
    """A node in this process, which nobody connects to."""
    settings = Settings.model_validate({**CONFIG, "engine": engine_at(f"redis://127.0.0.1:{port}")})
    node: Node = create_app(settings).state.node
    await stack.enter_async_context(node.running())
    return lambda data: node.publish("node", NewPublication(Raw(as_json(data))))


async def publishers_of(kind: str, stack: AsyncExitStack, port: int) -> list[Publish]:
    """As many as take turns; an application has one node."""
    if kind == "node":
        return [await node_publisher(stack, port)] * BACK_ENDS
    make = bare_publisher if kind == "bare" else api_publisher
    return [await make(stack, port) for _ in range(BACK_ENDS)]


async def publish_in_time(publish: Publish, moments: Iterator[float]) -> None:
    """Each at its moment, or as soon as the one before is done."""
    for moment in moments:
        await asyncio.sleep(moment - time.monotonic())
        await publish(publication_now())


async def publish_main(kind: str, port: int) -> None:
    async with AsyncExitStack() as stack:
        publishers = await publishers_of(kind, stack, port)
        async for seconds, rate in requests():
            count = int(seconds * rate)
            start = time.monotonic() + 0.05
            moments = (start + number / rate for number in range(count))
            await asyncio.gather(*(publish_in_time(publish, moments) for publish in publishers))
            print(count, time.monotonic() - start, flush=True)


# --------------------------------------------------------------------------------------------------- hearing


class Ages:
    """How old publications were when they were heard, in milliseconds."""

    def __init__(self) -> None:
        self.all: list[float] = []

    def receive(self, data: bytes) -> None:
        """Any number of them."""
        now = time.monotonic()
        self.all += [(now - float(stamp)) * 1e3 for stamp in STAMP.findall(data)]

    async def report(self, count: int) -> str:
        """Of so many, once they have come, the median and the p99; then begin anew."""
        async with asyncio.timeout(30):
            while len(self.all) < count:
                await asyncio.sleep(0.01)
        ages, self.all = self.all, []
        return f"{statistics.median(ages)} {statistics.quantiles(ages, n=100)[98]}"


async def hear_bare(port: int, ages: Ages) -> None:
    """redis-py's pub/sub, and a callback for each message."""
    async with Redis(port=port) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(bare=lambda message: ages.receive(message["data"]))
        await pubsub.run()


class Ear(Subscriber):
    """A subscriber that looks at what comes."""

    def __init__(self, channel: str, ages: Ages) -> None:
        super().__init__("tocsin", channel)
        self.ages = ages

    def data_received(self, data: bytes) -> None:
        """A frame arrives whole, as small as it is."""
        if self.ready.done():
            self.ages.receive(data)
        else:
            super().data_received(data)


async def hear_tocsin(channel: str, port: int, ages: Ages) -> None:
    """A WebSocket."""
    loop = asyncio.get_running_loop()
    _, ear = await loop.create_connection(lambda: Ear(channel, ages), "127.0.0.1", port)
    await ear.ready


async def hear_main(kind: str, port: int) -> None:
    ages = Ages()
    hearing = asyncio.ensure_future(
        hear_bare(port, ages) if kind == "bare" else hear_tocsin(kind, port, ages)
    )
    await asyncio.wait([hearing], timeout=1)
    async for (count,) in requests():
        print(await ages.report(int(count)), flush=True)
    hearing.cancel()
    await asyncio.wait([hearing])


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    uvloop.run((publish_main if sys.argv[1] == "publish" else hear_main)(sys.argv[2], int(sys.argv[3])))
