"""`tocsin serve`: runs one node, or several workers, until a signal arrives."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import structlog
import typer

from tocsin_server.app import create_app
from tocsin_server.config.contradictions import contradictions
from tocsin_server.config.errors import ConfigError
from tocsin_server.config.exposure import startup_notices
from tocsin_server.config.loading import Settings, load_settings
from tocsin_server.config.reach import reach
from tocsin_server.config.tls_files import expired_certificates, tls_file_problems
from tocsin_server.errors import EngineError
from tocsin_server.logging import configure_logging
from tocsin_server.metrics.multiprocess import WorkerMetrics
from tocsin_server.output import replace_standard_streams
from tocsin_server.serving.accepting import Share
from tocsin_server.serving.connection_counts import ConnectionCounts
from tocsin_server.serving.listening import CannotListen, listen, url_of
from tocsin_server.serving.prefork import CANNOT_START, WorkerPool
from tocsin_server.serving.server import serve as serve_app
from tocsin_server.serving.server import work
from tocsin_server.sources.sources import missing_packages
from tocsin_server.version import __version__

log = structlog.get_logger()

LOCAL_ORIGINS = (
    "self",
    *(
        f"{scheme}://{host}{port}"
        for scheme in ("http", "https")
        for host in ("localhost", "*.localhost", "127.0.0.1", "[::1]")
        for port in ("", ":*")
    ),
)
"""Pages of this machine, such as those of a development server. `--insecure` lets no others connect."""


def serve(
    host: Annotated[
        str | None, typer.Option(help="The address to listen on.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="The port to listen on; 0 lets the system choose.", show_default="8000"),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file; docs/configuration.md describes it.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="The URL of the engine, such as redis://HOST.", show_default="memory://"),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(help="How many processes to run. Several need a Redis that they share.", min=1, max=256),
    ] = 1,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Let every client and caller do everything. For development."),
    ] = False,
    ui: Annotated[bool, typer.Option("--ui", help="Serve the demo page at /, and let it connect.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run a node: WebSocket, Server-Sent Events and the HTTP API on one port."""
    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        _fail(f"--log-level is {log_level}, but must be debug, info, warning or error.")
    replace_standard_streams(lambda count: log.warning("log_lines_left_out", count=count))
    configure_logging(log_level)
    settings = _settings(config, _overrides(host, port, engine, insecure), ui, insecure)
    if workers > 1 and settings.engine.is_in_memory:
        _fail(
            f"--workers {workers} needs an engine that the workers share, but memory:// belongs to one "
            "process: set engine.url to a redis:// URL, or use --workers 1."
        )
    if problems := [*tls_file_problems(settings), *missing_packages(settings)]:
        _fail(*problems)
    for sentence in [
        *startup_notices(settings),
        *contradictions(settings),
        *expired_certificates(settings),
        *reach(settings),
    ]:
        typer.echo(sentence, err=True)
    try:
        if workers > 1:
            _serve_with(workers, settings, ui)
        else:
            serve_app(create_app(settings, has_page=ui), settings.server, on_ready=_print_ready)
    except (CannotListen, EngineError, ValueError) as error:
        _fail(str(error))


def _print_ready(url: str) -> None:
    typer.echo(f"Tocsin {__version__} listening on {url}")


def _serve_with(workers: int, settings: Settings, ui: bool) -> None:
    """Serve with several workers on one address. Each worker is a node of its own."""
    sockets, admin_sockets = listen(settings.server), listen(settings.admin)
    name = settings.server.name or f"{socket.gethostname()}_{url_of(sockets[0]).rpartition(':')[2]}"
    is_tls = bool(settings.server.tls_certificate or settings.admin.tls_certificate)
    counts = ConnectionCounts(workers)
    was_ready = False

    def announce() -> None:
        nonlocal was_ready
        was_ready = True
        _print_ready(url_of(sockets[0], is_tls=bool(settings.server.tls_certificate)))

    def stop_listening() -> None:
        """Let the kernel refuse connections as soon as no worker listens."""
        for sock in (*sockets, *admin_sockets):
            sock.close()

    def start(number: int, parent: int, report: Callable[[], None]) -> int:
        own = settings.server.model_copy(update={"name": f"{name}_{number + 1}"})
        try:
            app = create_app(
                settings.model_copy(update={"server": own}),
                has_page=ui,
                worker_metrics=WorkerMetrics(Path(folder), number + 1),
            )
            work(app, own, sockets, admin_sockets, Share(counts, number), parent, report)
        except (EngineError, ValueError) as error:
            if was_ready:
                log.warning("worker_cannot_start", worker=number + 1, error=str(error))
            else:
                typer.echo(str(error), err=True)
            return CANNOT_START
        return 0

    with TemporaryDirectory(prefix="tocsin-") as folder:
        passed_signals = [signal.SIGHUP] if is_tls else []
        code = WorkerPool(workers, start, announce, passed_signals, counts.leave, stop_listening).run()
    raise typer.Exit(code)


def _overrides(
    host: str | None, port: int | None, engine: str | None, insecure: bool
) -> dict[str, dict[str, object]]:
    """The settings that the flags override. `--insecure` opens clients, pages and the HTTP API."""
    opened: dict[str, Any] = {"insecure": True} if insecure else {}
    return {
        "server": {"host": host, "port": port},
        "engine": {"url": engine},
        "client": dict(opened),
        "api": dict(opened),
    }


def _settings(
    config: Path | None, overrides: dict[str, dict[str, object]], ui: bool, insecure: bool
) -> Settings:
    try:
        settings = load_settings(config, overrides)
        if (ui or insecure) and not settings.server.allowed_origins:
            overrides["server"]["allowed_origins"] = [*LOCAL_ORIGINS] if insecure else ["self"]
            settings = load_settings(config, overrides)
    except ConfigError as error:
        _fail(*error.problems)
    return settings


def _fail(*sentences: str) -> Any:
    for sentence in sentences:
        typer.echo(sentence, err=True)
    raise typer.Exit(1)
