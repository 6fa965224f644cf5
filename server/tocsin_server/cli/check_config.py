"""`tocsin check-config`: reads a configuration as `tocsin serve` does; prints its exposure or its errors."""

from pathlib import Path
from typing import Annotated

import typer

from tocsin_server.config.contradictions import contradictions
from tocsin_server.config.errors import ConfigError
from tocsin_server.config.exposure import exposures
from tocsin_server.config.loading import Settings, load_settings


def check_config(
    config: Annotated[
        Path | None,
        typer.Option(
            help="The TOML file to check. Without it: the environment and the defaults.", show_default=False
        ),
    ] = None,
) -> None:
    """Check a configuration. Prints what it leaves open, or one sentence for each error and exits with 1."""
    try:
        settings = _without_contradictions(load_settings(config))
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(1) from None
    typer.echo("ok")
    for exposure in exposures(settings):
        typer.echo(str(exposure))


def _without_contradictions(settings: Settings) -> Settings:
    if problems := contradictions(settings):
        raise ConfigError(*problems)
    return settings
