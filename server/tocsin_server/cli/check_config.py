"""`tocsin check-config`: reads a configuration as `tocsin serve` does; prints its exposure or its errors."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Annotated

import typer

from tocsin_server.config.contradictions import contradictions
from tocsin_server.config.errors import ConfigError
from tocsin_server.config.exposure import exposures
from tocsin_server.config.loading import Settings, load_settings
from tocsin_server.config.reach import reach
from tocsin_server.config.tls_files import expired_certificates, tls_file_problems
from tocsin_server.config.values import UNIX_PREFIX, is_passed_or_unix
from tocsin_server.engine.factory import create_engine, digest_of_histories
from tocsin_server.errors import EngineError
from tocsin_server.node.node import Node
from tocsin_server.serving.listening import Address, CannotListen, Hosts, listen
from tocsin_server.sources.sources import missing_packages, outbox_problems


def check_config(
    config: Annotated[
        Path | None,
        typer.Option(
            help="The TOML file to check. Without it: the environment and the defaults.", show_default=False
        ),
    ] = None,
    live: Annotated[
        bool,
        typer.Option("--live", help="Also check that the port is free, and that Redis and the outbox work."),
    ] = False,
) -> None:
    """Check a configuration. Prints what it leaves open, or one sentence for each error and exits with 1.

    Run it where the server runs, because it also checks files and the address.
    """
    try:
        settings = _checked(load_settings(config), is_live=live)
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(1) from None
    typer.echo("ok")
    for exposure in exposures(settings):
        typer.echo(str(exposure))
    for line in reach(settings):
        typer.echo(line)


def _checked(settings: Settings, *, is_live: bool) -> Settings:
    """The settings, if `tocsin serve` would start with them and no options contradict each other."""
    problems = [
        *contradictions(settings),
        *tls_file_problems(settings),
        *missing_packages(settings),
        *_address_problems("server", settings.server, is_live=is_live),
        *_address_problems("admin", settings.admin, is_live=is_live),
    ]
    problems = problems or expired_certificates(settings)
    if is_live and not problems:
        problems += _engine_problems(settings) + asyncio.run(outbox_problems(settings))
    if problems:
        raise ConfigError(*problems)
    return settings


def _address_problems(section: str, options: Address, *, is_live: bool) -> list[str]:
    """Why this machine cannot listen. A port in use counts only live: it is in use while the server runs."""
    problems = [
        f"{section}.host has {host}, but its directory does not exist or cannot be written."
        for host in options.hosts
        if host.startswith(UNIX_PREFIX)
        and not os.access(Path(host.removeprefix(UNIX_PREFIX)).parent, os.W_OK)
    ]
    addresses = tuple(host for host in options.hosts if not is_passed_or_unix(host))
    try:
        sockets = listen(Hosts(addresses, options.port))
    except CannotListen as error:
        is_in_use = getattr(error.__cause__, "errno", None) == errno.EADDRINUSE
        if is_live or not is_in_use:
            problems.append(f"{section}.host and {section}.port cannot be used: {error}")
        return problems
    for listening in sockets:
        listening.close()
    return problems


def _engine_problems(settings: Settings) -> list[str]:
    async def start() -> None:
        async with Node(settings, create_engine(settings.engine, digest_of_histories(settings))).running():
            pass

    try:
        asyncio.run(start())
    except (EngineError, OSError) as error:
        return [f"engine.url cannot be used: {error}."]
    return []
