"""`tocsin demo`: starts nodes with the demo application and its page."""

import asyncio
import os
import signal
import socket
import sqlite3
import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
import uvloop

from tocsin_demo.ipc import NodeStatus
from tocsin_demo.link_store import prepare_database
from tocsin_demo.redis_server import RedisStartError, find_redis, redis_running
from tocsin_demo.settings import HOST, DemoConfig
from tocsin_demo.supervisor import StartError, Supervisor
from tocsin_demo.visit_store import VisitStore
from tocsin_server.logging import configure_logging

Level = Literal["debug", "info", "warning", "error"]

BACKLOG = 2048  # connections that the system queues for accept, as with uvicorn


def demo(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8000,
    nodes: Annotated[
        int, typer.Option(min=1, max=9, help="Number of nodes. Several share a Redis that the demo starts.")
    ] = 3,
    database: Annotated[
        Path | None,
        typer.Option(help="SQLite file for the application's links.", show_default="a temporary file"),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    log_level: Annotated[
        Level, typer.Option(help="Minimum level of log lines on standard error.")
    ] = "warning",
) -> None:
    """Run the demo: nodes, an application that publishes to them, and a page that shows what happens."""
    configure_logging(log_level)
    redis = find_redis() if nodes > 1 else None
    if nodes > 1 and redis is None:
        typer.echo("redis-server is not on the PATH: the demo runs one node, in memory.")
    try:
        listener = socket.create_server((HOST, port), backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        _fail(f"Port {port} cannot be used: {reason}. --port 0 chooses a free one.")
    with listener, tempfile.TemporaryDirectory(prefix="tocsin-demo-") as name:
        folder = Path(name)
        config = DemoConfig(listener.getsockname()[1], str(database or folder / "demo.sqlite"))
        if redis is None:
            running = _run_standalone(listener, config, open_page)
        else:
            listener.close()
            running = _run_supervised(Supervisor(config, nodes, log_level), redis, folder, open_page)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(running)
        except sqlite3.Error as error:
            _fail(f"The database {database} cannot be used: {error}.")
        except (RedisStartError, StartError) as error:
            _fail(str(error))


async def _run_standalone(listener: socket.socket, config: DemoConfig, open_page: bool) -> None:
    from tocsin_demo import node_main  # noqa: PLC0415 - the supervisor starts sooner without these imports

    _prepare_database(config)
    await node_main.run_standalone(listener, config, lambda url: _print_addresses(url, open_page))


async def _run_supervised(supervisor: Supervisor, redis: str, folder: Path, open_page: bool) -> None:
    """Run until a signal arrives; a second one kills all nodes. Raises RedisStartError and StartError."""
    running = asyncio.current_task()
    is_stopping = False

    def stop() -> None:
        nonlocal is_stopping
        if is_stopping:
            supervisor.kill_all()
        elif running is not None:
            is_stopping = running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await _supervise(supervisor, redis, folder, open_page)
    except asyncio.CancelledError:
        if not is_stopping:
            raise


async def _supervise(supervisor: Supervisor, redis: str, folder: Path, open_page: bool) -> None:
    config = supervisor.config
    try:
        with _reserved(config.port):
            _prepare_database(config)
            async with redis_running(redis, folder) as server, asyncio.TaskGroup() as tasks:
                tasks.create_task(server.wait_until_ended())
                tasks.create_task(supervisor.run(server))
                await supervisor.is_ready.wait()
                _print_addresses(config.url, open_page, supervisor.nodes)
    except* (RedisStartError, StartError) as group:
        raise group.exceptions[0] from None
    except* sqlite3.Error as group:
        raise group.exceptions[0] from None


def _prepare_database(config: DemoConfig) -> None:
    """The visits of an earlier run are no longer there. May raise sqlite3.Error."""
    VisitStore(prepare_database(Path(config.database), config.url)).forget_all()


def _reserved(port: int) -> socket.socket:
    """Bind the port without listening, which keeps it reserved even while no node uses it."""
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reservation.bind((HOST, port))
    return reservation


def _fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)


def _print_addresses(url: str, open_page: bool, nodes: Sequence[NodeStatus] = ()) -> None:
    typer.echo(f"Tocsin demo listening on {url}")
    for node in nodes:
        typer.echo(f"  {node.name}  http://{node.address}  process {node.pid}")
    if nodes:
        typer.echo(
            "The page can kill, drain and deafen nodes. In a shell, `kill -9` kills one, `kill` drains it."
        )
    typer.echo("Open the page in two tabs. Ctrl-C stops the demo.")
    if open_page:
        webbrowser.open(url)
