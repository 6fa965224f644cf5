"""`tocsin outbox`: prints the SQL that creates the table of the outbox."""

from __future__ import annotations

from typing import Annotated

import typer

from tocsin_server.config.source_options import OutboxOptions
from tocsin_server.sources.postgres.schema import schema


def outbox(
    table: Annotated[str, typer.Option(help="The table, as in outbox.table.")] = OutboxOptions.model_fields[
        "table"
    ].default,
    strict_order: Annotated[
        bool,
        typer.Option(
            "--strict-order",
            help="Let transactions that publish into the same channel wait for each other, so that its rows "
            "are published in the order of their ids.",
        ),
    ] = False,
) -> None:
    """Print the SQL that creates the outbox in PostgreSQL: pipe it to psql, or put it into a migration."""
    try:
        options = OutboxOptions(table=table)
    except ValueError:
        raise typer.BadParameter(f"{table!r} is not the name of a table", param_hint="--table") from None
    typer.echo(schema(options.table, is_strict=strict_order), nl=False)
