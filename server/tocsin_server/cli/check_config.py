"""`tocsin check-config`: reads a configuration as `serve` would, and says what it opens or what is wrong."""

from pathlib import Path
from typing import Annotated

import typer

from tocsin_server.config.exposure import doors
from tocsin_server.config.loading import ConfigError, load


def check_config(
    config: Annotated[
        Path | None,
        typer.Option(help="The file to check. Without one: environment and defaults.", show_default=False),
    ] = None,
) -> None:
    """Check a configuration; exit 1 and one sentence for each mistake, if there are any."""
    try:
        settings = load(config)
    except ConfigError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(1) from None
    typer.echo("ok")
    for door in doors(settings):
        typer.echo(str(door))
