"""`tocsin serve`: one node, until a signal comes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tocsin_server import __version__, logs
from tocsin_server.advice import safe_start_advice
from tocsin_server.app import create_app
from tocsin_server.config import ConfigError, Settings, load
from tocsin_server.errors import EngineError
from tocsin_server.serving import CannotListen
from tocsin_server.serving import serve as serve_app


def serve(  # noqa: PLR0917 - typer reads the flags off it
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 chooses one.", show_default="8000")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file (docs/configuration.md).")] = None,
    engine: Annotated[
        str | None, typer.Option(help="Where shared state lives.", show_default="memory://")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes; more than one needs an engine they share.", min=1)
    ] = 1,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Let everybody do everything. For development.")
    ] = False,
    ui: Annotated[bool, typer.Option("--ui", help="Serve the page at /, and let it connect.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run a node: WebSocket, Server-Sent Events and the HTTP API on one port."""
    if workers > 1:
        _fail(
            "More workers need an engine that they share, and memory:// is a process's own: use --workers 1."
        )
    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        _fail(f"--log-level is {log_level}, but must be debug, info, warning or error.")
    logs.configure(log_level)
    settings = _settings(config, _overrides(host, port, engine, insecure), ui)
    for sentence in safe_start_advice(settings):
        typer.echo(sentence, err=True)
    try:
        serve_app(
            create_app(settings, has_page=ui),
            settings.server,
            on_ready=lambda url: typer.echo(f"Tocsin {__version__} listening on {url}"),
        )
    except (CannotListen, EngineError, ValueError) as error:
        _fail(str(error))


def _overrides(
    host: str | None, port: int | None, engine: str | None, insecure: bool
) -> dict[str, dict[str, object]]:
    """What the flags set; `--insecure` opens every door at once."""
    opened: dict[str, Any] = {"insecure": True} if insecure else {}
    return {
        "server": {"host": host, "port": port, "allowed_origins": ["*"] if insecure else None},
        "engine": {"url": engine},
        "client": dict(opened),
        "api": dict(opened),
    }


def _settings(config: Path | None, overrides: dict[str, dict[str, object]], ui: bool) -> Settings:
    try:
        settings = load(config, overrides)
        if ui and not settings.server.allowed_origins:
            overrides["server"]["allowed_origins"] = ["self"]
            settings = load(config, overrides)
    except ConfigError as error:
        _fail(*error.problems)
    return settings


def _fail(*sentences: str) -> Any:
    for sentence in sentences:
        typer.echo(sentence, err=True)
    raise typer.Exit(1)
