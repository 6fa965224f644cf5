"""``tocsin nodes``: list the nodes and their states, and drain one."""

from __future__ import annotations

import sys
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from tocsin.errors import CallError, TocsinError
from tocsin.publisher import Publisher

from . import fail
from .options import DEFAULT_URL, ApiKey, Url
from .output import printable, to_line

NOT_FOUND = 104


class Action(StrEnum):
    """The actions on a node."""

    drain = "drain"


def nodes(
    action: Annotated[Action | None, typer.Argument(help="drain: stop a node gracefully.")] = None,
    node: Annotated[str, typer.Argument(help="The node's id or name, as in the table.")] = "",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per node.")] = False,
) -> None:
    """List all nodes, or drain one: its clients reconnect to other nodes, then it stops."""
    if (action is None) != (not node):
        fail("give drain and the node's id or name, or neither")
    try:
        with Publisher(url, api_key) as publisher:
            if action is Action.drain:
                publisher.drain(node)
            else:
                _show(publisher.info(), as_json)
    except (AttributeError, TypeError, OverflowError):
        fail("the server did not answer with nodes: is the address that of a Tocsin server?")
    except (TocsinError, ValueError) as error:
        if action is Action.drain and isinstance(error, CallError) and error.code == NOT_FOUND:
            fail(f"there is no node {node!r}; `tocsin nodes` lists the ids and names of all")
        fail(str(error))


def _show(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        sys.stdout.writelines(to_line(node) + "\n" for node in found)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True, min_width=8)  # `drain` takes this, so it is never cut
    for heading in ("name", "address", "uptime", "clients", "channels", "memory", "lag", "state"):
        table.add_column(heading, overflow="fold")
    for node in sorted(found, key=lambda node: str(node.get("name"))):
        table.add_row(
            node.get("uid", "")[:8],
            node.get("name", ""),
            node.get("address", ""),
            str(timedelta(seconds=node.get("uptime", 0))),
            f"{node.get('num_clients', 0):,}",
            f"{node.get('num_channels', 0):,}",
            f"{node.get('memory_bytes', 0) / 2**20:.0f} MiB",
            f"{node.get('lag_seconds', 0) * 1000:.1f} ms",
            node.get("state", ""),
        )
    Console().print(table)
    for warning in sorted({warning for node in found for warning in node.get("warnings", ())}):
        sys.stderr.write(f"warning: {printable(warning)}\n")
