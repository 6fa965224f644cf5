"""Subscribers of six kinds.

WebSockets and event streams are used with the client library and bare; emulated connections are bare, over an
HTTP stream and over an event stream. The client library drops duplicates and recovers what is missing. The
bare subscribers record everything that the server sends.
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

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.faults.record import SubscriptionRecord
from tests.support.api import NO_TLS
from tests.support.event_stream import Event as Sent
from tests.support.event_stream import open_event_stream_at
from tests.support.timing import SOON, TICK
from tocsin import Client, EventStream, Position, Publication, Subscribed, Unsubscribed
from tocsin.models import Event

AWAY_SECONDS = (5 * TICK, 10 * TICK)
"""Minimum and maximum delay before a bare subscriber reconnects."""

HTTP_STREAM_PATH = "/connection/http_stream"
SSE_PATH = "/connection/sse"

LONGEST_LINE = 2**17
"""Bytes. No message that every subscriber gets is longer."""


class Subscribe(Protocol):
    """Subscribes at a URL, reconnects when necessary, and keeps the records, until cancelled."""

    __qualname__: str

    def __call__(self, url: str, records: Sequence[SubscriptionRecord], /) -> Coroutine[Any, Any, None]: ...


async def by_client(url: str, records: Sequence[SubscriptionRecord]) -> None:
    """The client library over one WebSocket."""
    async with Client(url) as client, asyncio.TaskGroup() as tasks:
        for record in records:
            subscription = client.subscribe(record.channel)
            tasks.create_task(_follow(subscription.events(), {record.channel: record}))


async def by_event_stream(url: str, records: Sequence[SubscriptionRecord]) -> None:
    """The client library over one event stream."""
    by_channel = {record.channel: record for record in records}
    async with EventStream(url, list(by_channel)) as stream:
        await _follow(stream.events(), by_channel)


async def _follow(events: AsyncIterator[Event], records: dict[str, SubscriptionRecord]) -> None:
    async for event in events:
        if isinstance(event, Publication):
            records[event.channel].received(Position(event.offset, event.epoch), event.data["n"])
        elif isinstance(event, Subscribed) and event.recovered is not True:
            assert event.position is not None
            record = records[event.channel]
            (record.subscribed if event.recovered is None else record.gap)(event.position)
        elif isinstance(event, Unsubscribed):
            raise AssertionError(f"unsubscribed for good: {event}")


class BareWebSocket:
    """A WebSocket without the client library.

    While `may_read` is cleared, it reads nothing and stays connected. The kernel then buffers `receive_bytes`
    (0: its default). `on_end` is called when a connection ends that this side did not end.
    """

    def __init__(self, on_end: Callable[[], None] = lambda: None, receive_bytes: int = 0) -> None:
        self._on_end = on_end
        self._receive_bytes = receive_bytes
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def subscribe(self, url: str, records: Sequence[SubscriptionRecord]) -> None:
        """Reconnect when a connection ends, and recover from the recorded positions."""
        address = url.replace("http://", "ws://") + "/connection/websocket"
        options: dict[str, Any] = {"compression": None, "max_size": None, "ping_interval": None}
        while True:
            with contextlib.suppress(OSError, TimeoutError, WebSocketException, Resubscribe):
                async with connect(address, sock=await self._open_socket(url), **options) as connection:
                    try:
                        await self._read(connection, records)
                    except (OSError, WebSocketException):
                        self._on_end()
                        raise
            await asyncio.sleep(random.uniform(*AWAY_SECONDS))

    async def _open_socket(self, url: str) -> socket.socket:
        host, port = _address(url)
        sock = socket.socket()
        sock.setblocking(False)
        if self._receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_bytes)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _read(self, connection: ClientConnection, records: Sequence[SubscriptionRecord]) -> None:
        commands = [{"id": 1, "connect": {}}, *map(_subscribe, range(2, len(records) + 2), records)]
        await connection.send("\n".join(map(json.dumps, commands)))
        by_channel = {record.channel: record for record in records}
        while True:
            await self.may_read.wait()
            for line in str(await connection.recv()).split("\n"):
                message = json.loads(line)
                if not message:
                    await connection.send("{}")
                elif push := message.get("push"):
                    _pushed(by_channel[push["channel"]], push)
                elif message["id"] > 1:
                    _subscribed(records[message["id"] - 2], message)


class BareEventStream:
    """An event stream without the client library. It reconnects with the last event id, as a browser does.

    `on_end` is called when a stream ends, which this side never does.
    """

    def __init__(self, on_end: Callable[[], None] = lambda: None) -> None:
        self._on_end = on_end

    async def subscribe(self, url: str, records: Sequence[SubscriptionRecord]) -> None:
        """Reconnect when a stream ends."""
        _, port = _address(url)
        path = "/events?" + urlencode([("channel", record.channel) for record in records])
        last_id: str | None = None
        while True:
            with contextlib.suppress(OSError, EOFError):
                async with open_event_stream_at(port, path, last_id, LONGEST_LINE) as stream:
                    while True:
                        try:
                            event = await stream.next()
                        except OSError:
                            self._on_end()
                            raise
                        last_id = last_id if event.id is None else event.id
                        _sent(event, records)
            await asyncio.sleep(random.uniform(*AWAY_SECONDS))


class BareEmulatedConnection:
    """An emulated connection without an SDK, over the stream at `path`. Its commands go to any node.

    `on_end` is called when a stream ends that this side did not end.
    """

    def __init__(self, path: str, on_end: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._on_end = on_end

    async def subscribe(self, url: str, records: Sequence[SubscriptionRecord]) -> None:
        """Reconnect when a stream ends or a request fails, and recover from the recorded positions."""
        async with httpx.AsyncClient(timeout=SOON, trust_env=False, verify=NO_TLS) as http:
            while True:
                with contextlib.suppress(OSError, EOFError, httpx.TransportError, Resubscribe):
                    async with self._open_stream(url) as reader:
                        try:
                            await self._read(reader, http, url, records)
                        except (OSError, EOFError):
                            self._on_end()
                            raise
                await asyncio.sleep(random.uniform(*AWAY_SECONDS))

    @contextlib.asynccontextmanager
    async def _open_stream(self, url: str) -> AsyncIterator[asyncio.StreamReader]:
        """Send the connect command. The request is HTTP/1.0: the body of its response is not chunked."""
        connect_command = json.dumps({"id": 1, "connect": {}})
        host, port = _address(url)
        reader, writer = await asyncio.open_connection(host, port, limit=LONGEST_LINE)
        if self._path == HTTP_STREAM_PATH:
            start = f"POST {self._path}"
            body = f"Content-Length: {len(connect_command)}\r\n\r\n{connect_command}"
        else:
            start, body = f"GET {self._path}?{urlencode({'cf_connect': connect_command})}", "\r\n"
        writer.write(f"{start} HTTP/1.0\r\nHost: {host}\r\n{body}".encode())
        try:
            async with asyncio.timeout(SOON):
                head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head:
                raise Resubscribe
            yield reader
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _read(
        self,
        reader: asyncio.StreamReader,
        http: httpx.AsyncClient,
        url: str,
        records: Sequence[SubscriptionRecord],
    ) -> None:
        by_channel = {record.channel: record for record in records}
        session: dict[str, str] = {}
        while True:
            line = (await reader.readuntil(b"\n")).strip().removeprefix(b"data: ")
            if not line:
                continue
            message = json.loads(line)
            if not message:
                await _emulate(http, url, session, [{}])
            elif push := message.get("push"):
                if "disconnect" in push:
                    raise Resubscribe
                _pushed(by_channel[push["channel"]], push)
            elif message["id"] == 1:
                session = {name: message["connect"][name] for name in ("session", "node")}
                await _emulate(http, url, session, [*map(_subscribe, range(2, len(records) + 2), records)])
            else:
                _subscribed(records[message["id"] - 2], message)


async def _emulate(
    http: httpx.AsyncClient, url: str, session: dict[str, str], commands: Sequence[dict[str, Any]]
) -> None:
    """Send commands of an emulated connection. Raises Resubscribe if no node has taken them."""
    data = "\n".join(map(json.dumps, commands))
    response = await http.post(f"{url}/emulation", json={**session, "data": data})
    if response.status_code != 204:
        raise Resubscribe


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


class Resubscribe(Exception):
    """The connection must be replaced: a new one recovers."""


def _subscribe(number: int, record: SubscriptionRecord) -> dict[str, Any]:
    request: dict[str, Any] = {"channel": record.channel}
    if at := record.position:
        request |= {"recover": True, "offset": at.offset, "epoch": at.epoch}
    return {"id": number, "subscribe": request}


def _subscribed(record: SubscriptionRecord, reply: dict[str, Any]) -> None:
    if "error" in reply:
        raise Resubscribe
    result = reply["subscribe"]
    epoch = result["epoch"]
    if record.position is None:
        record.subscribed(Position(result.get("offset", 0), epoch))
    elif not result.get("recovered"):
        record.gap(Position(result.get("offset", 0), epoch))
    for publication in result.get("publications", []):
        record.received(Position(publication["offset"], epoch), publication["data"]["n"])


def _pushed(record: SubscriptionRecord, push: dict[str, Any]) -> None:
    if "unsubscribe" in push:
        raise Resubscribe
    if publication := push.get("pub"):
        assert record.position is not None, "a push before its subscribe reply"
        position = Position(publication["offset"], record.position.epoch)
        record.received(position, publication["data"]["n"])


def _sent(event: Sent, records: Sequence[SubscriptionRecord]) -> None:
    """Record an event. Kinds other than gap and message carry no publication."""
    by_channel = {record.channel: record for record in records}
    if event.kind == "gap":
        by_channel[event.data["channel"]].gap(Position(**event.data["to"]))
    elif event.kind == "message" and event.id:
        positions = dict(zip(by_channel, map(Position.parse, event.id.split(",")), strict=True))
        for record in records:
            if record.position is None:
                record.subscribed(positions[record.channel])
        if event.data:
            channel, publication = event.data["channel"], event.data["pub"]
            position = Position(publication["offset"], positions[channel].epoch)
            by_channel[channel].received(position, publication["data"]["n"])
