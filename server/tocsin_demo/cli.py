"""`tocsin demo`: nodes, an application beside them, and the page that shows both."""

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

from tocsin_demo.first_links import prepare
from tocsin_demo.redis_server import NoRedisError, find_redis, redis_running
from tocsin_demo.settings import HOST, Ground
from tocsin_demo.supervisor import StartError, Supervisor
from tocsin_demo.wire import Member
from tocsin_server.logging import configure_logging

Level = Literal["debug", "info", "warning", "error"]

BACKLOG = 2048  # connections the system may hold ready, as uvicorn's own


def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses one.")] = 8000,
    nodes: Annotated[int, typer.Option(min=1, max=9, help="How many, over a Redis started for them.")] = 3,
    database: Annotated[
        Path | None,
        typer.Option(help="Where the application keeps its links.", show_default="a temporary file"),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    log_level: Annotated[Level, typer.Option(help="What to log, on standard error.")] = "warning",
) -> None:
    """Run nodes with a page that shows what they do, and an application that publishes to them."""
    configure_logging(log_level)
    redis = find_redis() if nodes > 1 else None
    if nodes > 1 and redis is None:
        typer.echo("There is no redis-server on the PATH, so this is one node, in memory.")
    try:
        listener = socket.create_server((HOST, port), backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        _fail(f"Port {port} cannot be used: {reason}. --port 0 chooses a free one.")
    with listener, tempfile.TemporaryDirectory(prefix="tocsin-demo-") as name:
        folder = Path(name)
        ground = Ground(listener.getsockname()[1], str(database or folder / "demo.sqlite"))
        if redis is None:
            running = _run_one(listener, ground, open_page)
        else:
            listener.close()
            running = _run_several(Supervisor(ground, nodes, log_level), redis, folder, open_page)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(running)
        except sqlite3.Error as error:
            _fail(f"The database {database} cannot be used: {error}.")
        except (NoRedisError, StartError) as error:
            _fail(str(error))


async def _run_one(listener: socket.socket, ground: Ground, open_page: bool) -> None:
    from tocsin_demo import alone  # noqa: PLC0415 - several nodes bring what it needs, and start sooner without

    await alone.run(listener, ground, lambda url: _announce(url, open_page))


async def _run_several(supervisor: Supervisor, redis: str, folder: Path, open_page: bool) -> None:
    """Processes, until a signal comes; a second one hurries them. Raises NoRedisError and StartError."""
    running = asyncio.current_task()
    is_stopping = False

    def stop() -> None:
        nonlocal is_stopping
        if is_stopping:
            supervisor.hurry()
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
    ground = supervisor.ground
    try:
        with _reserved(ground.port):
            prepare(Path(ground.database), ground.url)
            async with redis_running(redis, folder) as server, asyncio.TaskGroup() as tasks:
                tasks.create_task(server.must_not_end())
                tasks.create_task(supervisor.run(server))
                await supervisor.is_ready.wait()
                _announce(ground.url, open_page, supervisor.members)
    except* (NoRedisError, StartError) as group:
        raise group.exceptions[0] from None
    except* sqlite3.Error as group:
        raise group.exceptions[0] from None


def _reserved(port: int) -> socket.socket:
    """The port is ours while this is open, even if no node is left; nodes share it, and nobody calls here."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    place.bind((HOST, port))
    return place


def _fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)


def _announce(url: str, open_page: bool, members: Sequence[Member] = ()) -> None:
    typer.echo(f"Tocsin demo listening on {url}")
    for member in members:
        typer.echo(f"  {member.name}  http://{member.address}  process {member.pid}")
    if members:
        typer.echo("The page can kill, drain and deafen them; `kill -9` and `kill` do the first two here.")
    typer.echo("Open it in two tabs. Ctrl-C ends it.")
    if open_page:
        webbrowser.open(url)
