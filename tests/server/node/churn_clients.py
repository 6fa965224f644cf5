"""Clients that leave a node in every way: `python -m tests.server.node.churn_clients KIND BYTES`.

Prints by how many bytes the process grew for each client. It runs in a process of its own, so that nothing
else changes its memory. A process also grows when more clients than ever before are there at once, as on a
machine that is busy for a moment. So further clients come if it grew by BYTES or more, for a few rounds. A
leak shows in each round.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import random
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import psutil
import structlog
import uvloop

from tests.server.served_node import ServedNode, serve_node, until
from tests.support.raw_connection import HANDSHAKE, close_frame, commands
from tests.support.timing import progress_timeout
from tocsin_server.errors import Refusal
from tocsin_server.hooks.answers import Connected, Published, Subscribed
from tocsin_server.hooks.events import ConnectEvent, SubscribeEvent
from tocsin_server.hooks.registry import Hooks
from tocsin_server.transports.websocket import raw

WEBSOCKETS = 20_000
STREAMS = 600
HOOKED = 4_500
ROUNDS = 3
AT_A_TIME = 300
WARM_UP = 4_000
CHANNELS = 150

LIMITS = {"stale_timeout": 0.5, "ping_interval": 0.5, "pong_timeout": 0.25}
"""Seconds. Short, so that at the end no deadline is left to wait for.

On a slow machine they disconnect some clients, which is one more way to leave.
"""


class ScriptedClient(asyncio.Protocol):
    """A client that carries out a script. `closed` is done when its socket is closed.

    A step is the bytes to wait for, and the bytes to write then. After the last step the client aborts,
    closes, or waits for the server to close.
    """

    def __init__(self, steps: list[tuple[bytes, bytes]], ending: str) -> None:
        self._steps = steps
        self._ending = ending
        self._received = b""
        self._transport: asyncio.Transport
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self._received += data
        while self._steps and self._steps[0][0] in self._received:
            self._transport.write(self._steps.pop(0)[1])
            self._received = b""
            if not self._steps and self._ending == "close":
                self._transport.close()
            elif not self._steps and self._ending == "abort":
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)


Script = tuple[list[tuple[bytes, bytes]], str]
"""The steps of a client, and its ending."""


@cache
def commands_for(number: int) -> bytes:
    """Return commands that connect, subscribe to one channel and publish into another."""
    return commands(
        {"id": 1, "connect": {}},
        {"id": 2, "subscribe": {"channel": f"open:{number}"}},
        {"id": 3, "publish": {"channel": f"plain:{number}", "data": 1}},
    )


def websocket_scripts() -> Iterator[Script]:
    """Yield scripts in a random mix, the same in every run."""
    generator = random.Random(11)
    while True:
        frame = commands_for(generator.randrange(CHANNELS))
        handshake, handshake_end, published = (b"", HANDSHAKE), b"\r\n\r\n", b'"publish"'
        subscribing = [handshake, (handshake_end, frame)]
        half = generator.randrange(len(HANDSHAKE))
        scripts: list[Script] = [
            ([*subscribing, (published, close_frame())], "server"),
            ([*subscribing, (published, close_frame())], "close"),
            ([*subscribing, (published, b"")], "abort"),
            ([*subscribing, (published, b"")], "close"),
            (subscribing, "abort"),
            (subscribing, "close"),
            ([handshake, (handshake_end, frame[:40])], "abort"),
            ([handshake], "close"),
            ([(b"", HANDSHAKE[:half])], "abort"),
        ]
        yield generator.choice(scripts)


def event_stream_scripts() -> Iterator[Script]:
    """Yield scripts of event streams: refused, aborted and closed, before and after their first event."""
    generator = random.Random(12)
    while True:
        names = "&".join(f"channel=open:{number}" for number in generator.sample(range(CHANNELS), 2))
        request = f"GET /events?{names} HTTP/1.1\r\nHost: here\r\n\r\n".encode()
        opening, begun = (b"", request), b"id: "
        refused = (b"", request.replace(b"open:", b"nowhere:"))
        scripts: list[Script] = [
            ([opening, (begun, b"")], "abort"),
            ([opening, (begun, b"")], "close"),
            ([opening], "abort"),
            ([opening], "close"),
            ([refused, (b"nowhere", b"")], "close"),
            ([(b"", request[: generator.randrange(len(request))])], "abort"),
        ]
        yield generator.choice(scripts)


async def run_clients(served_node: ServedNode, scripts: Iterator[Script], count: int) -> None:
    """Run so many clients, some hundreds at a time."""
    loop = asyncio.get_running_loop()
    ended = 0

    async def run_scripts() -> None:
        nonlocal ended
        for steps, ending in remaining_scripts:
            _, client = await loop.create_connection(
                partial(ScriptedClient, steps, ending), "127.0.0.1", port
            )
            await client.closed
            ended += 1

    port = served_node.port
    remaining_scripts = itertools.islice(scripts, count)
    async with progress_timeout(lambda: ended), asyncio.TaskGroup() as tasks:
        for _ in range(AT_A_TIME):
            tasks.create_task(run_scripts())


def open_files() -> int:
    """Count the open files and sockets. A busy listening socket has several descriptors, and counts once."""
    descriptors = Path("/proc/self/fd").iterdir()
    return len({descriptor.readlink() for descriptor in descriptors if descriptor.is_symlink()})


class Footprint:
    """What the process holds when no client is connected."""

    def __init__(self) -> None:
        gc.collect()
        self.tasks = {task.get_name() for task in asyncio.all_tasks()}
        self.bytes = psutil.Process().memory_info().rss
        self.files = open_files()


async def settled_footprint(served_node: ServedNode) -> Footprint:
    """Wait until no connection and no deadline is left, and return the footprint."""
    state = served_node.server.server_state
    await until(lambda: not state.connections and not state.tasks)
    await served_node.until_empty()
    await until(lambda: not served_node.node._session_io._deadlines._heap)
    assert served_node.node._session_io._deadlines._timer is None
    assert not served_node.node._backfill._in_progress
    return Footprint()


def add_nothing(_hooks: Hooks) -> None:
    """Let no hook decide."""


def add_hooks(hooks: Hooks) -> None:
    """Let hooks admit, refuse, raise, and take too long, in turns; also those that run in threads."""
    turns = itertools.count()

    async def decide(event: ConnectEvent | SubscribeEvent) -> Any:
        turn = next(turns) % 7
        if turn == 1:
            return Refusal(1000, "no")
        if turn == 2:
            raise RuntimeError("a fault of the application")
        if turn == 3:
            await asyncio.Future()
        await asyncio.sleep(0)
        return Connected() if isinstance(event, ConnectEvent) else Subscribed()

    hooks.connect(decide)
    hooks.subscribe(decide)
    hooks.publish(lambda event: Published())


async def growth(
    kind: Callable[[], Iterator[Script]],
    warm_up: int,
    count: int,
    add: Callable[[Hooks], None],
    enough: float,
) -> float:
    """Return by how many bytes the process grew for each client after a warm-up.

    It is the growth of the first round in which it is less than `enough`, otherwise that of the last.
    """
    options = {"allow_anonymous": True, "hook_timeout": 0.05, **LIMITS}
    async with serve_node(client=options, add_hooks=add) as served_node:
        scripts = kind()
        await run_clients(served_node, scripts, warm_up)
        after = await settled_footprint(served_node)
        for _ in range(ROUNDS):
            before = after
            await run_clients(served_node, scripts, count - warm_up)
            after = await settled_footprint(served_node)
            assert after.tasks == before.tasks
            assert after.files <= before.files
            grown = float(after.bytes - before.bytes) / (count - warm_up)
            if grown < enough:
                break
        return grown


Kind = tuple[Callable[[], Iterator[Script]], int, int, Callable[[Hooks], None]]

KINDS: dict[str, Kind] = {
    "websockets": (websocket_scripts, WARM_UP, WEBSOCKETS, add_nothing),
    "hooks": (websocket_scripts, HOOKED // 3, HOOKED, add_hooks),
    "streams": (event_stream_scripts, STREAMS // 3, STREAMS, add_nothing),
}

if __name__ == "__main__":
    raw.CLOSE_REPLY_SECONDS = 0.5  # clients of hooks leave many closes without a reply
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as a real server has
        sys.stdout.write(f"{runner.run(growth(*KINDS[sys.argv[1]], enough=float(sys.argv[2])))}\n")
