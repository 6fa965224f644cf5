"""``tocsin sub``: follow channels, one JSON line per message."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Annotated, Any

import typer

from tocsin.cli import fail
from tocsin.cli.options import DEFAULT_URL, Url
from tocsin.cli.output import ClosedOutput, Output, to_line
from tocsin.client import Client
from tocsin.errors import TocsinError
from tocsin.sse import EventStream
from tocsin.values import Event, Position, Publication, State, StateChanged, Subscribed, Unsubscribed

CHILD_SECONDS = 5.0


def sub(
    channels: Annotated[list[str], typer.Argument(metavar="CHANNEL...", help="Channels to follow.")],
    url: Url = DEFAULT_URL,
    token: Annotated[str, typer.Option(envvar="TOCSIN_TOKEN", help="A connection token.")] = "",
    sse: Annotated[
        bool, typer.Option("--sse", help="Use Server-Sent Events instead of a WebSocket.")
    ] = False,
    since: Annotated[
        str, typer.Option(metavar="POSITION", help="Resume: offset@epoch, one per channel, joined by commas.")
    ] = "",
    command: Annotated[
        str,
        typer.Option(
            "--exec", metavar="CMD", help="Run CMD per message, its JSON on standard input, in order."
        ),
    ] = "",
    limit: Annotated[int, typer.Option(help="End after this many messages; 0 follows for ever.", min=0)] = 0,
) -> None:
    """Follow channels: one JSON line per message, and what happens to the connection on standard error.

    Comes back and resumes by itself. Exit code: 0 after --limit, or when the reader of a pipe has gone; 130
    on Ctrl-C; 143 on SIGTERM; 1 when the server refuses or ends it for good.
    """
    try:
        positions = _positions(since, channels)
        follow = Following(url, token, channels, positions, limit, command)
        code = asyncio.run(_until_told(follow.over_events if sse else follow.over_websocket))
        if code and follow.position:
            _report(f"ended; to resume: --since {follow.position}")
    except (TocsinError, ValueError, OSError) as error:
        _report(str(error))
        code = 1
    raise typer.Exit(code)


class Following:
    """One run of the command: where from, what was seen, when to end."""

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
        """Where to resume: behind what has been printed; empty while no channel has said where it stands."""
        positions = self._positions.values()
        return ",".join(str(position or "") for position in positions) if any(positions) else ""

    async def over_websocket(self, output: Output) -> None:
        """Follow until the limit, or an error."""
        async with Client(self._url, token=self._token, on_state=self._tell) as client:
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

    async def over_events(self, output: Output) -> None:
        """The same, on one event stream."""
        channels, since = list(self._positions), self.position
        async with EventStream(self._url, channels, token=self._token, since=since) as stream:
            await self._read(stream.events(), output)

    async def _read(self, events: AsyncIterator[Event], output: Output) -> None:
        async for event in events:
            if not isinstance(event, Publication):
                if isinstance(event, Subscribed):
                    self._positions[event.channel] = event.position
                self._tell(event)
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

    def _tell(self, event: Event) -> None:
        match event:
            case StateChanged(State.CONNECTED):
                _report(f"connected to {self._url}")
            case StateChanged(State.CONNECTING, _, reason) if reason != "connect called":
                _report(f"not connected, trying again: {reason}")
            case Unsubscribed(channel, code, reason):
                _report(f"{channel}: unsubscribed: {reason} (code {code})")
            case Subscribed(channel, False, position):
                _report(f"{channel}: messages may be missing before {position or 'this point'}")
            case Subscribed(channel, True, position):
                _report(f"{channel}: resumed at {position or 'this point'}, nothing missed")
            case Subscribed(channel, None, position):
                _report(f"{channel}: subscribed at {position}" if position else f"{channel}: subscribed")


class Finished(Exception):
    """The limit is reached."""


async def _until_told(follow: Callable[[Output], Coroutine[Any, Any, None]]) -> int:
    """Follow until it ends, a signal comes, or the reader of standard output has gone: the exit code."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[int] = loop.create_future()

    def tell(code: int) -> None:
        if not told.done():
            told.set_result(code)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tell, 128 + number)
    if sys.stdout is None:
        fail("standard output is closed")
    output = Output(sys.stdout.fileno())
    output.watch(lambda: tell(0))
    following = asyncio.create_task(follow(output))
    endings: list[asyncio.Future[Any]] = [following, told]
    await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    with suppress(asyncio.CancelledError, Finished, ClosedOutput):
        await following
    return told.result() if told.done() else 0


async def _run(command: str, line: str) -> int:
    """Run a command on one line; it is ended when the following is."""
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
        raise ValueError("each channel may be named once")
    if not since:
        return [None] * len(channels)
    parts = since.split(",")
    if len(parts) != len(channels):
        raise ValueError(
            f"--since has {len(parts)} positions for {len(channels)} channels: give one for each"
        )
    return [Position.parse(part) if part else None for part in parts]


def _report(sentence: str) -> None:
    """Straight to the descriptor: what a closed standard error cannot take is not tried again at exit."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), f"tocsin sub: {sentence}\n".encode())
