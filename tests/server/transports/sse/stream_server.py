"""A served node in this process, and its event streams, read from the socket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
from msgspec import Raw

from tests.support.api import NO_TLS
from tests.support.timing import QUIET, SOON
from tests.support.tokens import SECRET
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ServerOptions
from tocsin_server.core.events import ServerEvent
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.nodes import ControlCommand
from tocsin_server.node.node import Node
from tocsin_server.protocol.messages import Position
from tocsin_server.serving.server import serving

Json = dict[str, Any]

ORIGIN = "https://app.example"
HISTORY: Json = {"history_size": 10, "history_ttl": "300s"}
OPEN: Json = {"allow_subscribe_for_client": True, "allow_subscribe_for_anonymous": True}

SETTINGS: Json = {
    "server": {"allowed_origins": [ORIGIN]},
    "client": {"allow_anonymous": True, "token_hmac_secret": SECRET},
    "channels": OPEN,
    "namespaces": {
        "history": {**OPEN, **HISTORY, "force_recovery": True},
        "unrecoverable": {**OPEN, **HISTORY},
        "latest": {**OPEN, **HISTORY, "force_recovery": True, "force_recovery_mode": "cache"},
        "seen": {**OPEN, "presence": True, "join_leave": True, "force_push_join_leave": True},
        "named": {"allow_subscribe_for_client": True},
        "closed": {**HISTORY, "force_recovery": True},
    },
}


@dataclass
class Event:
    """One event as it was written. An `id` of None means no `id:` line, which keeps the last id."""

    kind: str = "message"
    data: Any = None
    id: str | None = None


class Stream:
    """The body of a response with status 200, event by event.

    `comments` counts the comments between events. `connect` is the data of the `connect` event, which `next`
    skips. `retry` is the reconnection time in milliseconds.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._unread = b""
        self.comments = 0
        self.connect: Json | None = None
        self.last_id = ""
        self.retry = 0

    async def next(self) -> Event:
        """The next event. Raises EOFError once the response is complete."""
        async with asyncio.timeout(SOON):
            while True:
                event = self._parse(await self._block())
                if event is not None and event.kind == "connect":
                    self.connect = event.data
                elif event is not None:
                    return event

    async def message(self) -> Json:
        """The data of the next event, which must be a message."""
        event = await self.next()
        assert event.kind == "message", event
        data: Json = event.data
        return data

    async def numbers(self, count: int) -> list[int]:
        """The data of the next publications."""
        return [(await self.message())["pub"]["data"] for _ in range(count)]

    async def commented(self, count: int) -> None:
        """Wait until so many comments came, and no event but `connect`."""
        async with asyncio.timeout(SOON):
            while self.comments < count:
                event = self._parse(await self._block())
                assert event is None or event.kind == "connect"

    async def is_quiet(self) -> bool:
        """Whether no event comes for a moment."""
        try:
            async with asyncio.timeout(QUIET):
                event = await self.next()
        except TimeoutError:
            return True
        raise AssertionError(f"not quiet: {event}")

    async def rest(self) -> list[Event]:
        """Every event up to the end of the response."""
        events = []
        with contextlib.suppress(EOFError):
            while True:
                events.append(await self.next())
        return events

    def abort(self) -> None:
        """Abort the connection, without closing the response."""
        self._writer.transport.abort()

    async def _block(self) -> list[str]:
        while b"\n\n" not in self._unread:
            size = int(await self._reader.readline(), 16)
            self._unread += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            if not size:
                raise EOFError
        block, _, self._unread = self._unread.partition(b"\n\n")
        return block.decode().split("\n")

    def _parse(self, lines: list[str]) -> Event | None:
        if lines == [":"]:
            self.comments += 1
            return None
        event = Event()
        for line in lines:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            match name:
                case "event":
                    event.kind = value
                case "data":
                    assert event.data is None, "one line of data is enough"
                    event.data = json.loads(value)
                case "id":
                    event.id = self.last_id = value
                case "retry":
                    self.retry = int(value)
                case _:
                    raise AssertionError(f"no field of an event stream: {line!r}")
        return event


@dataclass
class StreamServer:
    """A served node, its URL, and an HTTP client for responses that are not streams."""

    node: Node
    url: str
    http: httpx.AsyncClient

    @staticmethod
    def path(*channels: str, **query: str) -> str:
        """The path and query of a stream request."""
        return "/events?" + urlencode([*(("channel", channel) for channel in channels), *query.items()])

    async def publish(self, channel: str, *numbers: int) -> Position:
        """Publish numbers, one after the other; the position of the last one."""
        for number in numbers:
            position = await self.node.operations.publish(
                channel, NewPublication(Raw(json.dumps(number).encode()))
            )
        return position

    async def control(self, user: str, event: ServerEvent) -> None:
        """Apply a control command to a user's connections, as the API does."""
        await self.node.operations.control(ControlCommand(user, event))

    async def top(self, channel: str) -> Position:
        """The position of a channel's newest publication."""
        result = await self.node.operations.history(channel, 0, None, False)
        return Position(result.offset, result.epoch)

    @asynccontextmanager
    async def stream(
        self,
        *channels: str,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        begins: bool = True,
        **more_query: str,
    ) -> AsyncIterator[Stream]:
        """An event stream. Its first event holds only an id; `begins=False` leaves it to be read."""
        url = httpx.URL(self.url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        path = self.path(*channels, **(query or {}), **more_query)
        request = f"GET {path} HTTP/1.1\r\nHost: {url.host}:{url.port}\r\n{lines}\r\n"
        writer.write(request.encode())
        try:
            async with asyncio.timeout(SOON):
                head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head + await reader.read(1000)
            stream = Stream(reader, writer)
            if begins:
                first = await stream.next()
                assert (first.kind, first.data) == ("message", None)
            yield stream
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def until_empty(self) -> None:
        """Wait until no connection is left."""
        async with asyncio.timeout(SOON):
            while len(self.node.hub) or self.node.hub.channels:  # noqa: ASYNC110 - the hub announces nothing
                await asyncio.sleep(0.001)


@asynccontextmanager
async def stream_server(**sections: Json) -> AsyncIterator[StreamServer]:
    """Serve a node with the usual settings, where `sections` add to them or replace them."""
    merged = {name: {**SETTINGS.get(name, {}), **sections.get(name, {})} for name in {*SETTINGS, *sections}}
    app = create_app(Settings.model_validate(merged))
    async with (
        serving(app, ServerOptions(port=0)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=SOON, trust_env=False, verify=NO_TLS) as http,
    ):
        yield StreamServer(app.state.node, server.url, http)
