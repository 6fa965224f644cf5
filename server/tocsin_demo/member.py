"""One node of the demo in a process of its own: `python -m tocsin_demo.member`, run by the supervisor.

It listens on the port that all nodes share while it is ready, and always on one that is its alone.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from asyncio import StreamReader, StreamReaderProtocol
from pathlib import Path
from typing import NoReturn

import msgspec
import uvloop

from tocsin_demo.application import application
from tocsin_demo.cluster import Cluster
from tocsin_demo.door import Door
from tocsin_demo.settings import HOST, demo_settings
from tocsin_demo.wire import LONGEST_LINE, Plan, Ready, Report, Roster, Wish, line_of
from tocsin_server.app import create_app
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.errors import EngineError
from tocsin_server.logging import configure_logging
from tocsin_server.node.node import Node
from tocsin_server.serving.server import BACKLOG, Server

LOOK_SECONDS = 0.25
"""Between two looks at the own node: what has changed is told, and the door follows."""

ORPHANED_SECONDS = 10
"""How long a node without its supervisor may take to end."""


async def run() -> None:
    """Serve until a signal comes, or the supervisor is gone."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(LONGEST_LINE)
    await loop.connect_read_pipe(lambda: StreamReaderProtocol(reader), sys.stdin.buffer)
    first = await reader.readline()
    if not first:
        return  # the supervisor has been killed already
    plan = msgspec.json.decode(first, type=Plan)
    configure_logging(plan.log_level)
    cluster = Cluster(plan.name, _say)
    ground = plan.ground
    own = socket.create_server((HOST, 0), backlog=BACKLOG)
    async with application(
        Path(ground.database), ground.url, ground.api_key, ground.token_secret, cluster
    ) as routes:
        app = create_app(demo_settings(ground, plan.name), routes=routes, has_page=True)
        listens = asyncio.Event()
        server = Server(app, app.state.node.settings.server, on_ready=lambda _url: listens.set())
        beside = [
            asyncio.create_task(_follow(reader, cluster, server)),
            asyncio.create_task(_attend(app.state.node, cluster, Door(server, ground.port), listens)),
        ]
        try:
            await server.serve(sockets=[own])
        finally:
            for task in beside:
                task.cancel()


async def _follow(reader: StreamReader, cluster: Cluster, server: Server) -> None:
    """Learn who is there, until nobody is left to tell us."""
    async for line in reader:
        cluster.learn(msgspec.json.decode(line, type=Roster))
    signal.alarm(ORPHANED_SECONDS)
    server.should_exit = True


async def _attend(node: Node, cluster: Cluster, door: Door, listens: asyncio.Event) -> NoReturn:
    """Say how it stands with this node, and keep the door open while it is ready, or nobody else is."""
    await listens.wait()
    await door.stand(is_open=True)
    said = _report(node)
    _say(Ready(node.address))
    _say(said)
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        report = _report(node)
        if report != said:
            said = report
            _say(said)
        is_of_use = report.state == "ready" or (report.state == "deaf" and not cluster.has_other_takers)
        await door.stand(is_open=is_of_use)


def _report(node: Node) -> Report:
    figures = node.node_info(SurveyRequest(wants_channels=True))
    return Report(
        figures.uid,
        figures.state,
        node.unready_reason,
        figures.num_clients,
        figures.channels,
        round(figures.memory_bytes, -6),
        round(figures.lag_seconds, 4),
    )


def _say(message: Ready | Report | Wish) -> None:
    """To the supervisor; if it is gone, `_follow` notices."""
    with contextlib.suppress(BrokenPipeError):
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
