"""`tocsin demo`: one node, an application beside it, and the page that shows both."""

import asyncio
import os
import secrets
import socket
import sqlite3
import tempfile
import webbrowser
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
import uvloop

from tocsin_demo.application import application
from tocsin_server import logs
from tocsin_server.app import create_app
from tocsin_server.config import Settings
from tocsin_server.options import ApiOptions, ChannelOptions, ClientOptions, ServerOptions
from tocsin_server.serving import Server

Level = Literal["debug", "info", "warning", "error"]

HOST = "127.0.0.1"
BACKLOG = 2048  # connections the system may hold ready, as uvicorn's own


def demo(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses one.")] = 8000,
    database: Annotated[
        Path | None,
        typer.Option(help="Where the application keeps its links.", show_default="a temporary file"),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    log_level: Annotated[Level, typer.Option(help="What to log, on standard error.")] = "warning",
) -> None:
    """Run a node with a page that shows what it does, and an application that publishes to it."""
    logs.configure(log_level)
    try:
        listener = socket.create_server((HOST, port), backlog=BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        _fail(f"Port {port} cannot be used: {reason}. --port 0 chooses a free one.")
    with listener, tempfile.TemporaryDirectory(prefix="tocsin-demo-") as folder:
        running = _run(listener, database or Path(folder) / "demo.sqlite", open_page)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(running)
        except sqlite3.Error as error:
            _fail(f"The database {database} cannot be used: {error}.")


def demo_settings(port: int) -> Settings:
    """Safe settings for a page of our own: tokens and keys made now, and channels with a log."""
    return Settings(
        server=ServerOptions(host=HOST, port=port, name="node-1", allowed_origins=("self",), drain_seconds=0),
        client=ClientOptions(token_hmac_secret=secrets.token_urlsafe(32)),
        api=ApiOptions(keys=(secrets.token_urlsafe(32),)),
        channels=_logged(history_size=300),  # "links"
        namespaces={"chat": _logged(history_size=300, presence=True, join_leave=True)},
    )


def _logged(**options: object) -> ChannelOptions:
    """A channel any visitor may follow, and none may write to: what is said goes through the application."""
    return ChannelOptions.model_validate(
        {
            "history_ttl": "1h",
            "force_recovery": True,
            "allow_subscribe_for_client": True,
            "allow_history_for_subscriber": True,
            "allow_presence_for_subscriber": True,
            "force_push_join_leave": bool(options.get("join_leave")),
            **options,
        }
    )


async def _run(listener: socket.socket, database: Path, open_page: bool) -> None:
    port = listener.getsockname()[1]
    url = f"http://{HOST}:{port}"
    settings = demo_settings(port)
    key, secret = settings.api.keys[0], settings.client.token_hmac_secret
    async with application(database, url, key, secret) as routes:
        app = create_app(settings, routes=routes, has_page=True)
        server = Server(app, settings.server, on_ready=lambda url: _announce(url, open_page))
        await server.serve(sockets=[listener])


def _fail(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)


def _announce(url: str, open_page: bool) -> None:
    typer.echo(f"Tocsin demo listening on {url}")
    typer.echo("Open it in two tabs. Ctrl-C ends it.")
    if open_page:
        webbrowser.open(url)
