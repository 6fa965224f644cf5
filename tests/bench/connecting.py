"""CPU time of connect, subscribe and leave: a node with its checks, without, and with hooks; a bare server.

python -m tests.bench.connecting NAME PORT    request anything, reply: CPU seconds so far
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import uvloop

from tests.bench.servers import SETTINGS
from tests.server.engine.redis.redis_server import free_ports
from tests.support.raw_connection import HANDSHAKE, frame
from tests.support.tcp import HOST
from tests.support.tokens import SECRET, connection_token
from tests.support.worker import requests, run_worker
from tocsin_server.app import create_app
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.config.loading import Settings
from tocsin_server.hooks.answers import Connected, Subscribed
from tocsin_server.hooks.events import ConnectEvent, SubscribeEvent
from tocsin_server.logging import configure_logging
from tocsin_server.serving.server import collect_less, serving

CONNECTIONS = 400
"""Connections of one round, at most `AT_ONCE` at the same time."""
AT_ONCE = 20
ROUNDS = 9

OPEN = SETTINGS.channels.model_copy(update={"allow_subscribe_for_client": True})

WITH_TOKEN = (
    json.dumps({"id": 1, "connect": {"token": connection_token("bench")}}),
    json.dumps({"id": 2, "subscribe": {"channel": "bench"}}),
)
WITHOUT_TOKEN = ('{"id":1,"connect":{}}', WITH_TOKEN[1])

NEVER_REACHED = 1_000_000
"""A limit that is checked, although no round reaches it."""

HOOKS = ("without hooks", "a hook", "two hooks")
"""Clients without a token: admitted by the configuration, or by hooks that answer at once."""

VARIANTS = {
    **dict.fromkeys(
        HOOKS,
        Settings(
            server=SETTINGS.server,
            client=ClientOptions(allow_anonymous=True),
            channels=OPEN.model_copy(update={"allow_subscribe_for_anonymous": True}),
        ),
    ),
    "checked": Settings(
        server=SETTINGS.server,
        client=ClientOptions(token_hmac_secret=SECRET),
        limits=LimitOptions(exempt_addresses=(), address_connect_rate=NEVER_REACHED),
        channels=OPEN,
    ),
    "unchecked": Settings(
        server=SETTINGS.server,
        client=ClientOptions(
            token_hmac_secret=SECRET,
            frame_rate=0,
            command_rate=0,
            new_channel_rate=0,
            user_command_rate=0,
            user_publish_rate=0,
            user_new_channel_rate=0,
        ),
        limits=LimitOptions(
            exempt_addresses=("0.0.0.0/0", "::/0"),
            connect_rate=0,
            address_connect_rate=0,
            address_connection_limit=0,
            half_open_limit=0,
            address_half_open_limit=0,
            new_channel_rate=0,
            presence_entries=0,
        ),
        channels=OPEN.model_copy(update={"publish_rate": 0}),
    ),
}
"""The default limits, which count the address of this machine too; and all that options can switch off."""


async def connect(event: ConnectEvent) -> Connected:
    """Answer at once."""
    return Connected()  # anonymous, as the clients without hooks are


async def subscribe(event: SubscribeEvent) -> Subscribed:
    """Answer at once."""
    return Subscribed()


async def main(name: str, port: int) -> None:
    """Serve, and tell the CPU seconds when requested."""
    settings = VARIANTS[name]
    options = settings.server.model_copy(update={"port": port})
    app = create_app(settings)
    if name in HOOKS[1:]:
        app.hooks.connect(connect)
    if name == "two hooks":
        app.hooks.subscribe(subscribe)
    async with serving(app, options):
        async for _ in requests():
            print(time.process_time(), flush=True)


BARE = "bare_websocket"


async def cpu_per_connection(
    variants: Sequence[str] = ("checked", "unchecked", BARE),
    rounds: int = ROUNDS,
    connections: int = CONNECTIONS,
) -> dict[str, float]:
    """The median CPU microseconds of connect, subscribe and leave, by variant."""
    modules = dict.fromkeys(variants, "tests.bench.connecting")
    if BARE in modules:
        modules[BARE] = "tests.bench.request_servers"
    figures: dict[str, list[float]] = {name: [] for name in modules}
    ports = dict(zip(modules, free_ports(len(modules)), strict=True))
    async with AsyncExitStack() as stack:
        nodes = {
            name: await stack.enter_async_context(run_worker(modules[name], name, port))
            for name, port in ports.items()
        }
        for round_number in range(rounds + 1):
            for name, node in nodes.items():
                (before,) = await node.call(0)
                await _connect_all(ports[name], WITHOUT_TOKEN if name in HOOKS else WITH_TOKEN, connections)
                (after,) = await node.call(0)
                if round_number:  # the first round warms up
                    figures[name].append((after - before) * 1e6 / connections)
    return {name: statistics.median(values) for name, values in figures.items()}


async def _connect_all(port: int, commands: Sequence[str], connections: int) -> None:
    left = iter(range(connections))

    async def connect_some() -> None:
        for _ in left:
            await _connect(port, commands)

    await asyncio.gather(*(connect_some() for _ in range(AT_ONCE)))


async def _connect(port: int, commands: Sequence[str]) -> None:
    """Connect, subscribe and leave, each command by itself."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    for command in commands:
        writer.write(frame(command))
        if b'"error"' in (reply := await reader.read(4096)):
            raise RuntimeError(f"the node refused a command: {reply!r}")
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    configure_logging("warning")
    collect_less()  # as `tocsin serve` does
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
