"""Subscribers of four kinds: over a WebSocket or an event stream, each with the client and without.

The clients drop what comes twice and recover what is missing, as they should; those without show to the
record whatever the server sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.faults.record import Journal
from tests.support.event_stream import Event as Sent
from tests.support.event_stream import streaming_at
from tests.support.timing import TICK
from tocsin import Client, EventStream, Position, Publication, Subscribed, Unsubscribed
from tocsin.models import Event

AWAY_SECONDS = (5 * TICK, 10 * TICK)
"""How long somebody without a client stays away, at least and at most, once a connection has ended."""

LONGEST_LINE = 2**17
"""Bytes: longer than any message that every subscriber gets."""


class Subscribe(Protocol):
    """Subscribes at an address, comes back whenever it has to, and writes journals, until cancelled."""

    __qualname__: str

    def __call__(self, url: str, journals: Sequence[Journal], /) -> Coroutine[Any, Any, None]: ...


async def by_client(url: str, journals: Sequence[Journal]) -> None:
    """One WebSocket for all channels."""
    async with Client(url) as client, asyncio.TaskGroup() as tasks:
        for journal in journals:
            subscription = client.subscribe(journal.channel)
            tasks.create_task(_follow(subscription.events(), {journal.channel: journal}))


async def by_event_stream(url: str, journals: Sequence[Journal]) -> None:
    """One event stream for all channels."""
    by_channel = {journal.channel: journal for journal in journals}
    async with EventStream(url, list(by_channel)) as stream:
        await _follow(stream.events(), by_channel)


async def _follow(events: AsyncIterator[Event], journals: dict[str, Journal]) -> None:
    async for event in events:
        if isinstance(event, Publication):
            journals[event.channel].hear(Position(event.offset, event.epoch), event.data["n"])
        elif isinstance(event, Subscribed) and event.recovered is not True:
            assert event.position is not None
            journal = journals[event.channel]
            (journal.begin if event.recovered is None else journal.tell)(event.position)
        elif isinstance(event, Unsubscribed):
            raise AssertionError(f"sent away from a channel for good: {event}")


class Wire:
    """A WebSocket without a client. `may_read` cleared, it reads nothing more, and stays connected.

    `receive_bytes` is how much the system keeps for it then; 0 leaves that to the system. `on_end` is called
    when a connection ends that this side did not end.
    """

    def __init__(self, on_end: Callable[[], None] = lambda: None, receive_bytes: int = 0) -> None:
        self._on_end = on_end
        self._receive_bytes = receive_bytes
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def subscribe(self, url: str, journals: Sequence[Journal]) -> None:
        """Come back as soon as a connection ends, each time from where the journals are."""
        address = url.replace("http://", "ws://") + "/connection/websocket"
        options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}
        while True:
            with contextlib.suppress(OSError, TimeoutError, WebSocketException, ComeBack):
                async with connect(address, sock=await self._dial(url), **options) as connection:
                    try:
                        await self._visit(connection, journals)
                    except (OSError, WebSocketException):
                        self._on_end()
                        raise
            await asyncio.sleep(random.uniform(*AWAY_SECONDS))

    async def _dial(self, url: str) -> socket.socket:
        host, port = _address(url)
        plain = socket.socket()
        plain.setblocking(False)
        if self._receive_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
        try:
            await asyncio.get_running_loop().sock_connect(plain, (host, port))
        except BaseException:
            plain.close()
            raise
        return plain

    async def _visit(self, connection: ClientConnection, journals: Sequence[Journal]) -> None:
        commands = [{"id": 1, "connect": {}}, *map(_subscribe, range(2, len(journals) + 2), journals)]
        await connection.send("\n".join(map(json.dumps, commands)))
        by_channel = {journal.channel: journal for journal in journals}
        while True:
            await self.may_read.wait()
            for line in str(await connection.recv()).split("\n"):
                message = json.loads(line)
                if not message:
                    await connection.send("{}")
                elif push := message.get("push"):
                    _pushed(by_channel[push["channel"]], push)
                elif message["id"] > 1:
                    _subscribed(journals[message["id"] - 2], message)


class EventWire:
    """An event stream without a client. It comes back with the last id that it was sent, as a browser does.

    `on_end` is called when a stream ends, which is never this side's doing.
    """

    def __init__(self, on_end: Callable[[], None] = lambda: None) -> None:
        self._on_end = on_end

    async def subscribe(self, url: str, journals: Sequence[Journal]) -> None:
        """Come back as soon as a stream ends."""
        _, port = _address(url)
        path = "/events?" + urlencode([("channel", journal.channel) for journal in journals])
        last_id: str | None = None
        while True:
            with contextlib.suppress(OSError, EOFError):
                async with streaming_at(port, path, last_id, LONGEST_LINE) as stream:
                    while True:
                        try:
                            event = await stream.next()
                        except OSError:
                            self._on_end()
                            raise
                        last_id = last_id if event.id is None else event.id
                        _sent(event, journals)
            await asyncio.sleep(random.uniform(*AWAY_SECONDS))


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


class ComeBack(Exception):
    """This connection is of no more use: a new one recovers."""


def _subscribe(number: int, journal: Journal) -> dict[str, Any]:
    request: dict[str, Any] = {"channel": journal.channel}
    if at := journal.position:
        request |= {"recover": True, "offset": at.offset, "epoch": at.epoch}
    return {"id": number, "subscribe": request}


def _subscribed(journal: Journal, reply: dict[str, Any]) -> None:
    if "error" in reply:
        raise ComeBack
    result = reply["subscribe"]
    epoch = result["epoch"]
    if journal.position is None:
        journal.begin(Position(result.get("offset", 0), epoch))
    elif not result.get("recovered"):
        journal.tell(Position(result.get("offset", 0), epoch))
    for publication in result.get("publications", []):
        journal.hear(Position(publication["offset"], epoch), publication["data"]["n"])


def _pushed(journal: Journal, push: dict[str, Any]) -> None:
    if "unsubscribe" in push:
        raise ComeBack
    if publication := push.get("pub"):
        assert journal.position is not None, "a push before its subscribe reply"
        position = Position(publication["offset"], journal.position.epoch)
        journal.hear(position, publication["data"]["n"])


def _sent(event: Sent, journals: Sequence[Journal]) -> None:
    """Events of other kinds say nothing of what was published."""
    by_channel = {journal.channel: journal for journal in journals}
    if event.kind == "gap":
        by_channel[event.data["channel"]].tell(Position(**event.data["to"]))
    elif event.kind == "message" and event.id:
        positions = dict(zip(by_channel, map(Position.parse, event.id.split(",")), strict=True))
        for journal in journals:
            if journal.position is None:
                journal.begin(positions[journal.channel])
        if event.data:
            channel, publication = event.data["channel"], event.data["pub"]
            position = Position(publication["offset"], positions[channel].epoch)
            by_channel[channel].hear(position, publication["data"]["n"])
