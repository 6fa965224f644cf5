"""Clients of a node that come and go in every possible way: `python -m tests.server.node.churn_clients KIND`.

Prints by how many bytes the process grew for each, in a process in which nobody else has left anything.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import cast

import psutil
import uvloop

from tests.server.served_node import ServedNode, serve_node, until
from tests.support.raw_connection import HANDSHAKE, close_frame, commands
from tests.support.timing import SOON

WEBSOCKETS = 20_000
STREAMS = 600
AT_A_TIME = 300
WARM_UP = 4_000
CHANNELS = 150

LIMITS = {"stale_timeout": 2, "ping_interval": 2, "pong_timeout": 1}
"""Seconds. Short, so that at the end every moment that somebody waited for is soon over.

Who is told to go because of them, on a slow machine, goes in one more way.
"""


class Visitor(asyncio.Protocol):
    """A client that says what it has to say, step by step, and is gone. `gone` is done when its socket is.

    A step is what to wait for, then what to write. After the last one the visitor aborts, or just closes; or
    it waits for the server to close.
    """

    def __init__(self, steps: list[tuple[bytes, bytes]], ending: str) -> None:
        self._steps = steps
        self._ending = ending
        self._heard = b""
        self._transport: asyncio.Transport
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self._heard += data
        while self._steps and self._steps[0][0] in self._heard:
            self._transport.write(self._steps.pop(0)[1])
            self._heard = b""
            if not self._steps and self._ending == "close":
                self._transport.close()
            elif not self._steps and self._ending == "abort":
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set_result(None)


Visit = tuple[list[tuple[bytes, bytes]], str]
"""What a visitor does: its steps and its ending."""


@cache
def wishes_for(number: int) -> bytes:
    """Connect, and two channels' business."""
    return commands(
        {"id": 1, "connect": {}},
        {"id": 2, "subscribe": {"channel": f"open:{number}"}},
        {"id": 3, "publish": {"channel": f"plain:{number}", "data": 1}},
    )


def websocket_visits() -> Iterator[Visit]:
    """Visits in a random mix, which is the same every time."""
    chance = random.Random(11)
    while True:
        wishes = wishes_for(chance.randrange(CHANNELS))
        handshake, shaken, answered = (b"", HANDSHAKE), b"\r\n\r\n", b'"publish"'
        entering = [handshake, (shaken, wishes)]
        half = chance.randrange(len(HANDSHAKE))
        visits: list[Visit] = [
            ([*entering, (answered, close_frame())], "server"),
            ([*entering, (answered, close_frame())], "close"),
            ([*entering, (answered, b"")], "abort"),
            ([*entering, (answered, b"")], "close"),
            (entering, "abort"),
            (entering, "close"),
            ([handshake, (shaken, wishes[:40])], "abort"),
            ([handshake], "close"),
            ([(b"", HANDSHAKE[:half])], "abort"),
        ]
        yield chance.choice(visits)


def stream_visits() -> Iterator[Visit]:
    """The same for event streams: refused, aborted, closed, before and after they are open."""
    chance = random.Random(12)
    while True:
        names = "&".join(f"channel=open:{chance.randrange(CHANNELS)}" for _ in range(2))
        request = f"GET /events?{names} HTTP/1.1\r\nHost: here\r\n\r\n".encode()
        opening, begun = (b"", request), b"id: "
        refused = (b"", request.replace(b"open:", b"nowhere:"))
        visits: list[Visit] = [
            ([opening, (begun, b"")], "abort"),
            ([opening, (begun, b"")], "close"),
            ([opening], "abort"),
            ([opening], "close"),
            ([refused, (b"}", b"")], "close"),
            ([(b"", request[: chance.randrange(len(request))])], "abort"),
        ]
        yield chance.choice(visits)


async def visit(served_node: ServedNode, visits: Iterator[Visit], count: int) -> None:
    """Let so many come and go, some hundreds at a time."""
    loop = asyncio.get_running_loop()

    async def come_and_go() -> None:
        for steps, ending in visits_left:
            _, visitor = await loop.create_connection(partial(Visitor, steps, ending), "127.0.0.1", port)
            await visitor.gone

    port = served_node.port
    visits_left = itertools.islice(visits, count)
    async with asyncio.timeout(10 * SOON), asyncio.TaskGroup() as tasks:
        for _ in range(AT_A_TIME):
            tasks.create_task(come_and_go())


class Footprint:
    """What a process holds once everybody is gone."""

    def __init__(self) -> None:
        gc.collect()
        self.tasks = {task.get_name() for task in asyncio.all_tasks()}
        self.bytes = psutil.Process().memory_info().rss
        self.descriptors = psutil.Process().num_fds()


async def footprint(served_node: ServedNode) -> Footprint:
    """Wait until everybody is gone and every deadline is over; nothing may be left of anybody."""
    state = served_node.server.server_state
    await until(lambda: not state.connections and not state.tasks)
    await served_node.until_empty()
    await until(lambda: not served_node.node._deadlines._heap)
    assert served_node.node._deadlines._timer is None
    assert not served_node.node._backfill._in_progress
    return Footprint()


async def grow(visits: Callable[[], Iterator[Visit]], warm_up: int, count: int) -> float:
    """By how many bytes the process grew for each visitor, after a warm-up."""
    async with serve_node(client={"allow_anonymous": True, **LIMITS}) as served_node:
        visitors = visits()
        await visit(served_node, visitors, warm_up)
        before = await footprint(served_node)
        await visit(served_node, visitors, count - warm_up)
        after = await footprint(served_node)
        assert after.tasks == before.tasks
        assert after.descriptors <= before.descriptors
        return float(after.bytes - before.bytes) / (count - warm_up)


KINDS = {
    "websockets": (websocket_visits, WARM_UP, WEBSOCKETS),
    "streams": (stream_visits, STREAMS // 3, STREAMS),
}

if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # that of a real server
        sys.stdout.write(f"{runner.run(grow(*KINDS[sys.argv[1]]))}\n")
