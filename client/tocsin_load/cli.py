"""``tocsin load``: many connections, publications at a rate, and an exact account of the deliveries."""

from __future__ import annotations

import asyncio
import json
import signal
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tocsin.cli import fail
from tocsin.cli.options import DEFAULT_URL, ApiKey, read_option
from tocsin.transports.address import http_url

from .chart import draw
from .limits import TooManyFiles
from .progress_line import ProgressLine
from .report import Report, show
from .run import Plan, Run


class Transport(StrEnum):
    """The transport of the connections."""

    WEBSOCKET = "websocket"
    SSE = "sse"
    MIX = "mix"


def load(  # noqa: PLR0917 # each flag is an argument
    url: Annotated[
        list[str] | None,
        typer.Option(
            envvar="TOCSIN_URL",
            help="A node; repeat it for several. Default: http://127.0.0.1:8000.",
            callback=read_option,
        ),
    ] = None,
    connections: Annotated[int, typer.Option(min=1, help="The number of connections.")] = 1000,
    transport: Annotated[Transport, typer.Option(help="WebSockets, event streams, or half of each.")] = (
        Transport.WEBSOCKET
    ),
    channels: Annotated[
        int, typer.Option(min=1, help="The number of channels; each connection subscribes to one.")
    ] = 10,
    channel_prefix: Annotated[
        str,
        typer.Option(
            help="Prefix of the channels' numbers. Default: load: if that namespace exists, else load-."
        ),
    ] = "",
    rate: Annotated[float, typer.Option(min=0, help="Connects per second; 0: as fast as possible.")] = 500,
    publish_rate: Annotated[
        float, typer.Option(min=0, help="Publications per second, over all channels; 0: none.")
    ] = 100,
    size: Annotated[int, typer.Option(min=0, help="Bytes of a publication's data, at least about 60.")] = 128,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to publish.")] = 30,
    count: Annotated[int, typer.Option(min=0, help="The largest number of publications; 0: no limit.")] = 0,
    processes: Annotated[int, typer.Option(min=0, help="Worker processes; 0: a suitable number.")] = 0,
    token: Annotated[
        str,
        typer.Option(
            envvar="TOCSIN_TOKEN", help="One connection token for all connections.", callback=read_option
        ),
    ] = "",
    secret: Annotated[
        str,
        typer.Option(
            envvar="TOCSIN_CLIENT__TOKEN_HMAC_SECRET",
            help="The server's token_hmac_secret. Each connection then has its own user.",
            callback=read_option,
        ),
    ] = "",
    api_key: ApiKey = "",
    grace: Annotated[float, typer.Option(min=0, help="Seconds to wait for the last deliveries.")] = 10,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw latency over time and its distribution, as SVG.")
    ] = None,
) -> None:
    """Open many connections, publish, and report which publications were delivered, and how fast.

    Ctrl-C stops early and prints the report; a second Ctrl-C aborts. Exit code: 0; 1 if any delivery was
    lost, duplicated or reordered, or if there was no connection.
    """
    urls = url or [DEFAULT_URL]
    plan = Plan(
        urls=urls,
        connections=connections,
        transport=transport.value,
        channels=channels,
        channel_prefix=channel_prefix,
        rate=rate,
        publish_rate=publish_rate,
        size=size,
        seconds=seconds,
        count=count,
        processes=processes,
        token=token,
        secret=secret,
        api_key=api_key,
        grace_seconds=grace,
    )
    console = Console()
    try:
        for one in urls:
            http_url(one, "")
        report = asyncio.run(_run(plan, console))
    except (ValueError, TooManyFiles) as error:
        fail(str(error))
    show(report, console)
    _write(report, json_file, plot)
    raise typer.Exit(0 if report.is_good else 1)


async def _run(plan: Plan, console: Console) -> Report:
    with ProgressLine(plan.connections, console) as line:
        run = Run(plan, line)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _stop, loop, number, run)
        return await run.run()


def _stop(loop: asyncio.AbstractEventLoop, number: int, run: Run) -> None:
    """Stop early. The same signal again has its default effect, and aborts."""
    loop.remove_signal_handler(number)
    run.stop()


def _write(report: Report, json_file: Path | None, plot: Path | None) -> None:
    try:
        if json_file is not None:
            json_file.write_text(json.dumps(report.as_json(), indent=2) + "\n", encoding="utf-8")
        if plot is not None:
            plot.write_text(draw(report), encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")
