"""`tocsin demo`: nodes, an application beside them, and the page that shows both."""

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import tempfile
import webbrowser
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
import uvloop

from tocsin_demo.application import application, prepare
from tocsin_demo.cluster import Cluster
from tocsin_demo.redis_server import NoRedisError, find_redis, redis_running
from tocsin_demo.settings import HOST, Ground, demo_settings
from tocsin_demo.supervisor import StartError, Supervisor
from tocsin_server import logs
from tocsin_server.app import create_app
from tocsin_server.serving import Server

Level = Literal["debug", "info", "warning", "error"]

BACKLOG = 2048  # connections the system may hold ready, as uvicorn's own

Announcing = Callable[[str], None]


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
    logs.configure(log_level)
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
        announce = _announcing(open_page)
        if redis is None:
            running = _run_one(listener, ground, announce)
        else:
            running = _run_several(_reserved(listener), ground, announce, redis, folder, nodes)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(running)
        except sqlite3.Error as error:
            _fail(f"The database {database} cannot be used: {error}.")
        except (NoRedisError, StartError) as error:
            _fail(str(error))
