"""One node of the demo in a process of its own: `python -m tocsin_demo.member`, run by the supervisor.

It listens on the port that all nodes share, and on one that is its alone.
"""

import asyncio
import signal
import socket
import sys
from asyncio import StreamReader, StreamReaderProtocol
from pathlib import Path

import msgspec
import uvloop

from tocsin_demo.application import application
from tocsin_demo.cluster import Cluster
from tocsin_demo.settings import HOST, demo_settings
from tocsin_demo.wire import Plan, Ready, Roster, Wish, line_of
from tocsin_server import logs
from tocsin_server.app import create_app
from tocsin_server.errors import EngineError
from tocsin_server.serving import Server

BACKLOG = 2048  # connections the system may hold ready, as uvicorn's own

ORPHANED_SECONDS = 10
"""How long a node without its supervisor may take to end."""


async def run() -> None:
    """Serve until a signal comes, or the supervisor is gone."""
    loop = asyncio.get_running_loop()
    reader = StreamReader()
    await loop.connect_read_pipe(lambda: StreamReaderProtocol(reader), sys.stdin.buffer)
    first = await reader.readline()
    if not first:
        return  # the supervisor has been killed already
    plan = msgspec.json.decode(first, type=Plan)
    logs.configure(plan.log_level)
    cluster = Cluster(plan.name, _say)
    ground = plan.ground
    shared = socket.create_server((HOST, ground.port), backlog=BACKLOG, reuse_port=True)
    own = socket.create_server((HOST, 0), backlog=BACKLOG)
    async with application(
        Path(ground.database), ground.url, ground.api_key, ground.token_secret, cluster
    ) as routes:
        settings = demo_settings(ground, plan.name)
        app = create_app(settings, routes=routes, has_page=True)
        server = Server(app, settings.server, on_ready=lambda url: _say(Ready(url.partition("://")[2])))
        following = asyncio.create_task(_follow(reader, cluster, server))
        try:
            await server.serve(sockets=[own, shared])
        finally:
            following.cancel()


async def _follow(reader: StreamReader, cluster: Cluster, server: Server) -> None:
    """Learn who is there, until nobody is left to tell us."""
    async for line in reader:
        cluster.learn(msgspec.json.decode(line, type=Roster))
    signal.alarm(ORPHANED_SECONDS)
    server.should_exit = True


def _say(message: Ready | Wish) -> None:
    sys.stdout.buffer.write(line_of(message))
    sys.stdout.buffer.flush()


def main() -> None:
    """What the process does."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except EngineError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
