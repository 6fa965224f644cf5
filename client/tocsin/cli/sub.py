"""``tocsin sub``: subscribe to channels, and print one JSON line per publication."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Annotated, Any

import typer

from tocsin.client import Client
from tocsin.errors import TocsinError
from tocsin.event_stream import EventStream
from tocsin.models import Event, Position, Publication, State, StateChanged, Subscribed, Unsubscribed
from tocsin.transports.address import redact

from . import fail
from .options import DEFAULT_URL, Url, read_option
from .output import ClosedOutput, Output, printable, to_line

CHILD_SECONDS = 5.0


def sub(
    channels: Annotated[
        list[str], typer.Argument(metavar="CHANNEL...", help="The channels to subscribe to.")
    ],
    url: Url = DEFAULT_URL,
    token: Annotated[
        str, typer.Option(envvar="TOCSIN_TOKEN", help="A connection token.", callback=read_option)
    ] = "",
    sse: Annotated[
        bool, typer.Option("--sse", help="Use Server-Sent Events instead of a WebSocket.")
    ] = False,
    since: Annotated[
        str,
        typer.Option(
            metavar="POSITION", help="Recover from offset@epoch, one per channel, joined by commas."
        ),
    ] = "",
    command: Annotated[
        str,
        typer.Option(
            "--exec",
            metavar="CMD",
            help="Run CMD for each publication, in order, with its JSON on standard input.",
        ),
    ] = "",
    limit: Annotated[int, typer.Option(help="End after this many publications; 0: never.", min=0)] = 0,
) -> None:
    """Subscribe to channels: one JSON line per publication; events of the connection on standard error.

    Reconnects and recovers by itself. Exit code: 0 after --limit, or when the reader of a pipe closes it; 130
    on Ctrl-C; 143 on SIGTERM; 1 when the server refuses or ends it for good.
    """
    try:
        positions = _positions(since, channels)
        run = SubRun(url, token, channels, positions, limit, command)
        code = asyncio.run(_run_until_stopped(run.over_sse if sse else run.over_websocket))
        if code and run.position:
            _report(f"ended; to recover later: --since {run.position}")
    except (TocsinError, ValueError, OSError) as error:
        _report(str(error))
        code = 1
    raise typer.Exit(code)


class SubRun:
    """One run of the command: its positions, and the number of publications that are left.

    The mutable state is ``_positions`` and ``_left``; only ``_read`` changes it.
    """

    def __init__(
        self,
        url: str,
        token: str,
        channels: list[str],
        since: list[Position | None],
        limit: int,
        command: str,
    ) -> None:
        self._url = url
        self._token = token
        self._positions = dict(zip(channels, since, strict=True))
        self._left = limit
        self._command = command

    @property
    def position(self) -> str:
        """The positions after the publications printed. Empty while no position is known."""
        positions = self._positions.values()
        return ",".join(str(position or "") for position in positions) if any(positions) else ""

    async def over_websocket(self, output: Output) -> None:
        """Subscribe over one WebSocket, until the limit or an error."""
        async with Client(self._url, token=self._token, on_state=self._report_event) as client:
            events = [
                client.subscribe(channel, since=position).events()
                for channel, position in self._positions.items()
            ]
            try:
                async with asyncio.TaskGroup() as readers:
                    for one in events:
                        readers.create_task(self._read(one, output))
            except BaseExceptionGroup as group:
                raise group.exceptions[0] from None

    async def over_sse(self, output: Output) -> None:
        """Subscribe over one event stream, until the limit or an error."""
        channels, since = list(self._positions), self.position
        async with EventStream(self._url, channels, token=self._token, since=since) as stream:
            await self._read(stream.events(), output)

    async def _read(self, events: AsyncIterator[Event], output: Output) -> None:
        async for event in events:
            if not isinstance(event, Publication):
                if isinstance(event, Subscribed):
                    self._positions[event.channel] = event.position
                self._report_event(event)
                continue
            await self._deliver(event, output)
            self._positions[event.channel] = event.position or self._positions[event.channel]
            self._left -= 1
            if self._left == 0:
                raise Finished

    async def _deliver(self, publication: Publication, output: Output) -> None:
        line = to_line(_fields(publication))
        if not self._command:
            await output.write(line)
            return
        code = await _run(self._command, line)
        if code:
            _report(f"the command exited with {code} for {publication.channel} {publication.position or ''}")

    def _report_event(self, event: Event) -> None:
        match event:
            case StateChanged(State.CONNECTED):
                _report(f"connected to {redact(self._url)}")
            case StateChanged(State.CONNECTING, _, reason) if reason != "connect called":
                _report(f"not connected, reconnecting: {reason}")
            case Unsubscribed(channel, code, reason):
                _report(f"{channel}: unsubscribed: {reason} (code {code})")
            case Subscribed(channel, False, position):
                _report(f"{channel}: publications may be missing before {position or 'this point'}")
            case Subscribed(channel, True, position):
                _report(f"{channel}: recovered at {position or 'this point'}, nothing missed")
            case Subscribed(channel, None, position):
                _report(f"{channel}: subscribed at {position}" if position else f"{channel}: subscribed")


class Finished(Exception):
    """The limit is reached."""


async def _run_until_stopped(follow: Callable[[Output], Coroutine[Any, Any, None]]) -> int:
    """Run until it ends, a signal arrives, or the reader closes the pipe. Returns the exit code."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[int] = loop.create_future()

    def stop(code: int) -> None:
        if not stopped.done():
            stopped.set_result(code)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, 128 + number)
    if sys.stdout is None:
        fail("standard output is closed")
    output = Output(sys.stdout.fileno())
    output.watch(lambda: stop(0))
    following = asyncio.create_task(follow(output))
    endings: list[asyncio.Future[Any]] = [following, stopped]
    await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    with suppress(asyncio.CancelledError, Finished, ClosedOutput):
        await following
    return stopped.result() if stopped.done() else 0


async def _run(command: str, line: str) -> int:
    """Run a command with one line on standard input. It is terminated when this is cancelled."""
    child = await asyncio.create_subprocess_shell(command, stdin=asyncio.subprocess.PIPE)
    try:
        await child.communicate(line.encode() + b"\n")
    finally:
        if child.returncode is None:
            child.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), CHILD_SECONDS)
            if child.returncode is None:
                child.kill()
                await child.wait()
    return child.returncode or 0


def _fields(publication: Publication) -> dict[str, Any]:
    fields: dict[str, Any] = {"channel": publication.channel, "data": publication.data}
    if publication.offset:
        fields["offset"] = publication.offset
    if publication.position is not None:
        fields["position"] = str(publication.position)
    if publication.tags:
        fields["tags"] = publication.tags
    if publication.info is not None:
        info = publication.info
        fields["info"] = {"user": info.user, "client": info.client}
        fields["info"] |= {"conn_info": info.conn_info} if info.conn_info is not None else {}
        fields["info"] |= {"chan_info": info.chan_info} if info.chan_info is not None else {}
    if publication.time:
        fields["time"] = publication.time
    return fields


def _positions(since: str, channels: list[str]) -> list[Position | None]:
    if len(set(channels)) != len(channels):
        raise ValueError("a channel is named twice")
    if not since:
        return [None] * len(channels)
    parts = since.split(",")
    if len(parts) != len(channels):
        raise ValueError(
            f"--since has {len(parts)} positions for {len(channels)} channels: give one per channel"
        )
    return [Position.parse(part) if part else None for part in parts]


def _report(sentence: str) -> None:
    """Write to the descriptor itself, so that Python does not try again at exit if it is closed."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"tocsin sub: {printable(sentence)}\n".encode())
