"""CPU time of a node for a call that a back end answers over HTTP, on kept connections.

Beside it are the same call with a hook in Python that answers at once, and the bare request with aiohttp. The
back end is a process of its own.

python -m tests.bench.proxies back_end PORT               serve
python -m tests.bench.proxies proxy|hook PORT BACK_END    request anything, reply: CPU seconds so far
python -m tests.bench.proxies bare PORT BACK_END          request a number of calls, reply: CPU seconds so far
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from contextlib import AsyncExitStack
from typing import cast

import aiohttp
import uvloop

from tests.bench.servers import SETTINGS
from tests.server.engine.redis.redis_server import free_ports
from tests.support.raw_connection import HANDSHAKE, frame
from tests.support.tcp import HOST
from tests.support.worker import WorkerProcess, requests, run_worker
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.hooks.answers import RpcAnswer
from tocsin_server.hooks.events import RpcEvent
from tocsin_server.logging import configure_logging
from tocsin_server.serving.server import serving

CALLS = 1600
"""Calls of one round, over `CLIENTS` connections of clients, one at a time on each."""
CLIENTS = 16
ROUNDS = 5

RESPONSE = (
    b"HTTP/1.1 200 OK\r\ndate: Sun, 29 Nov 2026 19:46:48 GMT\r\nserver: bench\r\ncontent-length: 38\r\n"
    b'content-type: application/json\r\n\r\n{"result": {"data": {"answer": 2019}}}'
)
BODY = json.dumps(
    {
        "client": "9336a229-2400-4ebc-8c50-0a643d22e8a0",
        "transport": "websocket",
        "protocol": "json",
        "encoding": "json",
        "user": "",
        "method": "price",
        "data": {"object_id": 12},
    }
).encode()
COMMAND = frame(json.dumps({"id": 2, "rpc": {"method": "price", "data": {"object_id": 12}}}))


class BackEndProtocol(asyncio.Protocol):
    """Answers each request, which comes in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such type

    def data_received(self, _data: bytes) -> None:
        self._transport.write(RESPONSE)


async def answer(_event: RpcEvent) -> RpcAnswer:
    """The hook that answers at once."""
    return RpcAnswer({"answer": 2019})


def settings_of(back_end: int) -> Settings:
    """Settings of a node without limits on commands; with a back end, it answers calls."""
    client = {"allow_anonymous": True, "command_rate": 0, "user_command_rate": 0}
    sections: dict[str, object] = {"server": SETTINGS.server, "client": client}
    if back_end:
        sections["client"] = {**client, "rpc_proxy": "bench"}
        sections["proxies"] = {"bench": {"url": f"http://{HOST}:{back_end}/{{event}}"}}
    return Settings.model_validate(sections)


async def serve_back_end(port: int) -> None:
    """Answer until the worker's input ends."""
    server = await asyncio.get_running_loop().create_server(BackEndProtocol, HOST, port)
    async with server:
        async for _ in requests():
            print(0, flush=True)


async def serve_node(name: str, port: int, back_end: int) -> None:
    """Serve, and tell the CPU seconds when requested."""
    settings = settings_of(back_end if name == "proxy" else 0)
    app = create_app(settings)
    if name == "hook":
        app.hooks.rpc(answer)
    async with serving(app, settings.server.model_copy(update={"port": port})):
        async for _ in requests():
            print(time.process_time(), flush=True)


async def call_back_end(back_end: int) -> None:
    """Make as many calls as requested, and tell the CPU seconds."""
    url = f"http://{HOST}:{back_end}/rpc"
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def call_some(count: int) -> None:
            headers = {"Content-Type": "application/json"}
            for _ in range(count):
                async with session.post(url, data=BODY, headers=headers) as answer:
                    await answer.read()

        async for (count,) in requests():
            await asyncio.gather(*(call_some(int(count) // CLIENTS) for _ in range(CLIENTS)))
            print(time.process_time(), flush=True)


async def cpu_per_call() -> dict[str, float]:
    """The median CPU microseconds of a call, by contender."""
    names = ("proxy", "hook", "bare")
    figures: dict[str, list[float]] = {name: [] for name in names}
    back_end, *ports = free_ports(1 + len(names))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(run_worker("tests.bench.proxies", "back_end", back_end))
        workers: dict[str, WorkerProcess] = {
            name: await stack.enter_async_context(run_worker("tests.bench.proxies", name, port, back_end))
            for name, port in zip(names, ports, strict=True)
        }
        for round_number in range(ROUNDS + 1):
            for (name, worker), port in zip(workers.items(), ports, strict=True):
                (before,) = await worker.call(0)
                if name != "bare":
                    await _call_node(port)
                (after,) = await worker.call(CALLS if name == "bare" else 0)
                if round_number:  # the first round warms up
                    figures[name].append((after - before) * 1e6 / CALLS)
    return {name: statistics.median(values) for name, values in figures.items()}


async def _call_node(port: int) -> None:
    await asyncio.gather(*(_call_some(port) for _ in range(CLIENTS)))


async def _call_some(port: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(frame(json.dumps({"id": 1, "connect": {}})))
    await reader.read(4096)
    for _ in range(CALLS // CLIENTS):
        writer.write(COMMAND)
        if b'"answer"' not in (reply := await reader.read(4096)):
            raise RuntimeError(f"the node refused a call: {reply!r}")
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    configure_logging("warning")
    which, *numbers = sys.argv[1:]
    own, other = (*map(int, numbers), 0)[:2]
    if which == "back_end":
        uvloop.run(serve_back_end(own))
    elif which == "bare":
        uvloop.run(call_back_end(other))
    else:
        uvloop.run(serve_node(which, own, other))
