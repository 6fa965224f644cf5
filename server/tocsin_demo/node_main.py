"""Runs one node with the application: as a process of the supervisor, or alone in the process of the command.

`python -m tocsin_demo.node_main` is run by the supervisor. The node listens on the port that all nodes share
while it is ready, and always on a port of its own.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from asyncio import StreamReader, StreamReaderProtocol
from collections.abc import Callable
from typing import NoReturn

import msgspec
import uvloop

from tocsin_demo.application import Application, application
from tocsin_demo.ipc import (
    LINE_LIMIT_BYTES,
    ClusterStatus,
    Listening,
    NodeCommand,
    NodeConfig,
    NodeReport,
    encode_line,
)
from tocsin_demo.nodes import Nodes
from tocsin_demo.publishing import LOBBY
from tocsin_demo.settings import HOST, DemoConfig, demo_settings
from tocsin_demo.shared_port import SharedPort
from tocsin_server.app import TocsinApp, create_app
from tocsin_server.config.loading import Settings
from tocsin_server.engine.nodes import SurveyRequest
from tocsin_server.errors import EngineError
from tocsin_server.logging import configure_logging
from tocsin_server.node.node import Node
from tocsin_server.serving.listening import BACKLOG
from tocsin_server.serving.server import Server

STANDALONE_NAME = "node-1"

REPORT_SECONDS = 0.25
"""How often the node's own state is compared with the last report."""

ORPHAN_SECONDS = 10
"""A node whose supervisor has ended gets this long to drain; then SIGALRM ends it."""


async def run_standalone(
    listener: socket.socket, config: DemoConfig, on_ready: Callable[[str], None]
) -> None:
    """Serve one in-memory node on this socket until a signal arrives. `on_ready` is given the node's URL."""
    nodes = Nodes(STANDALONE_NAME)
    async with application(config, nodes) as demo:
        settings = demo_settings(config, STANDALONE_NAME)
        app = _create_app(settings, demo)
        await Server(app, settings.server, on_ready).serve(sockets=[listener])


async def run_supervised() -> None:
    """Serve one node until a signal arrives or the supervisor ends. Reads its NodeConfig first."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(LINE_LIMIT_BYTES)
    await loop.connect_read_pipe(lambda: StreamReaderProtocol(reader), sys.stdin.buffer)
    first_line = await reader.readline()
    if not first_line:
        return  # the supervisor has ended already
    config = msgspec.json.decode(first_line, type=NodeConfig)
    configure_logging(config.log_level)
    nodes = Nodes(config.name, _send)
    own_socket = socket.create_server((HOST, 0), backlog=BACKLOG)
    async with application(config.demo, nodes) as demo:
        app = _create_app(demo_settings(config.demo, config.name), demo)
        is_listening = asyncio.Event()
        server = Server(app, app.state.node.settings.server, on_ready=lambda _url: is_listening.set())
        tasks = [
            asyncio.create_task(_read_status(reader, nodes, server)),
            asyncio.create_task(
                _report_changes(app.state.node, nodes, SharedPort(server, config.demo.port), is_listening)
            ),
        ]
        try:
            await server.serve(sockets=[own_socket])
        finally:
            for task in tasks:
                task.cancel()


def _create_app(settings: Settings, demo: Application) -> TocsinApp:
    """Create a node's ASGI application, which tells the demo's application of visits to the lobby."""
    app = create_app(settings, routes=demo.routes, has_page=True)
    app.hooks.events("subscribed", "unsubscribed", channels=(LOBBY,), name="visits")(demo.visits.on_events)
    return app


async def _read_status(reader: StreamReader, nodes: Nodes, server: Server) -> None:
    """Store every status that the supervisor sends. When the pipe ends, drain."""
    async for line in reader:
        nodes.update(msgspec.json.decode(line, type=ClusterStatus))
    signal.alarm(ORPHAN_SECONDS)
    server.should_exit = True


async def _report_changes(
    node: Node, nodes: Nodes, shared_port: SharedPort, is_listening: asyncio.Event
) -> NoReturn:
    """Report every change of the node's state, and keep the shared port open while the node is ready.

    A deaf node keeps the port open if no other node is ready: it can still publish.
    """
    await is_listening.wait()
    await shared_port.set_open(is_open=True)
    last_report = await _report(node)
    _send(Listening(node.address))
    _send(last_report)
    while True:
        await asyncio.sleep(REPORT_SECONDS)
        report = await _report(node)
        if report != last_report:
            last_report = report
            _send(report)
        is_needed = report.state == "deaf" and not nodes.is_replaced
        await shared_port.set_open(is_open=report.state == "ready" or is_needed)


async def _report(node: Node) -> NodeReport:
    figures = await node.node_info(SurveyRequest(wants_channels=True))
    return NodeReport(
        figures.uid,
        figures.state,
        node.unready_reason,
        figures.num_clients,
        figures.channels,
        round(figures.memory_bytes, -6),
        round(figures.lag_seconds, 4),
    )


def _send(message: Listening | NodeReport | NodeCommand) -> None:
    """Write a message to the supervisor. If it has ended, `_read_status` notices."""
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(encode_line(message))
        sys.stdout.buffer.flush()


def main() -> None:
    """Run the process; exit with the message of an EngineError."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_supervised())
    except EngineError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
