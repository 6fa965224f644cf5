"""``tocsin doctor``: check a running system, a configuration and this machine; each finding with its fix."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import httpx
import typer

from tocsin.errors import TocsinError
from tocsin.transports.address import redact
from tocsin.transports.http import HttpClient, HttpTarget

from . import fail
from .findings import Finding, error, has_error, line, ok, warning
from .options import read_option
from .output import printable, to_line
from .token_checks import CLOCK_SECONDS, token_findings
from .url_checks import OPEN_SECONDS, Target, url_findings

CHECKS = "tocsin.checks"  # the group of entry points of the server's own checks


def doctor(
    url: Annotated[
        str,
        typer.Option(
            envvar="TOCSIN_URL", help="Check the system at this public address.", callback=read_option
        ),
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            help="Check this configuration file, this machine and Redis.",
            show_default=False,
        ),
    ] = None,
    environment: Annotated[
        bool, typer.Option("--environment", help="The same with the configuration of the environment.")
    ] = False,
    token: Annotated[
        str,
        typer.Option(
            envvar="TOCSIN_TOKEN",
            help="A connection token that was just made: it is checked, and connections use it.",
            callback=read_option,
        ),
    ] = "",
    channel: Annotated[str, typer.Option(help="The channel of the event stream that is opened.")] = "doctor",
    issuer: Annotated[
        str, typer.Option(help="An address of the identity provider: its clock is compared with this one's.")
    ] = "",
    connections: Annotated[
        int, typer.Option(help="How many clients this machine is to serve.", min=1)
    ] = 10_000,
    seconds: Annotated[
        float, typer.Option(help="How long connections through the proxies are held.", min=0.1)
    ] = 35.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per finding.")] = False,
) -> None:
    """Check a running system (--url), a configuration and this machine (--config), or a token (--token).

    Prints a line for each finding: ok, warning or error, with its fix. Exits with 1 if there is an error.
    """
    if not (url or config or environment or token or issuer):
        fail("give --url, --config FILE, --environment, --token or --issuer: what to check")
    found: list[Finding] = []

    def report(finding: Finding) -> None:
        found.append(finding)
        typer.echo(to_line(finding) if as_json else printable(line(finding)))

    async def check_addresses() -> None:
        if issuer:
            report(await _issuer_clock(issuer))
        if url:
            async for finding in url_findings(Target(url, token, channel, seconds)):
                report(finding)

    try:
        for finding in token_findings(token, time.time()) if token else ():
            report(finding)
        for finding in _server_findings(config, connections) if config or environment else ():
            report(finding)
        asyncio.run(check_addresses())
    except (TocsinError, ValueError) as problem:
        fail(str(problem))
    raise typer.Exit(1 if has_error(found) else 0)


def _server_findings(config: Path | None, connections: int) -> Iterator[Finding]:
    """The checks of the server's package, which is found by its entry point."""
    try:
        checks = [point.load() for point in entry_points(group=CHECKS)]
    except ModuleNotFoundError:
        checks = []
    if not checks:
        yield error(
            "configuration", "it cannot be checked without the server", "pip install 'tocsin[server]'"
        )
    for check in checks:
        yield from check(config, connections)


async def _issuer_clock(url: str) -> Finding:
    """The header Date of any response of the issuer."""
    try:
        async with HttpTarget(url, timeout=OPEN_SECONDS).new_client(HttpClient) as http:
            response = await http.head(url)
        ahead = parsedate_to_datetime(response.headers["Date"]).timestamp() + 0.5 - time.time()
    except (httpx.RequestError, httpx.InvalidURL, KeyError, ValueError, TypeError) as problem:
        reason = str(problem) or type(problem).__name__
        text = f"{redact(url)} says no time: {reason}"
        return warning("clock of the issuer", text, "check the address, or give a --token that was just made")
    if abs(ahead) > CLOCK_SECONDS:
        return error(
            "clock of the issuer",
            f"it differs from that of this machine by {ahead:+.0f} s",
            "synchronize the clocks of both machines (NTP); until then raise client.token_leeway",
        )
    return ok("clock of the issuer", "it agrees with that of this machine")
