"""A client for each transport, which says what became of its connect command and of others."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.server.served_node import ServedNode
from tests.server.transports.streams.stream_client import StreamClient, streaming
from tests.support.timing import SOON

Json = dict[str, Any]


class Outcome(NamedTuple):
    """What became of a command: `ok` with its result, `error` or `closed` with a code, or a `status`."""

    kind: str
    value: Any


class Client(Protocol):
    """One connection."""

    async def connect(self) -> Outcome: ...

    async def call(self, number: int, method: str, params: Json) -> Outcome: ...

    def abort(self) -> None: ...


def outcome_of(message: Json, number: int) -> Outcome | None:
    """What a message says about a command; None if it is about something else."""
    disconnect = message.get("disconnect") or message.get("push", {}).get("disconnect")
    if disconnect:
        return Outcome("closed", disconnect["code"])
    if "connect" in message and "id" not in message:  # of a unidirectional client
        return Outcome("ok", message["connect"])
    if message.get("id") != number:
        return None
    if "error" in message:
        return Outcome("error", message["error"]["code"])
    return Outcome("ok", next(value for name, value in message.items() if name != "id"))


_clients: dict[str, httpx.AsyncClient] = {}


def http_of(served: ServedNode) -> httpx.AsyncClient:
    """Return the one HTTP client of a node. To make one takes 30 ms."""
    if served.url not in _clients:
        _clients[served.url] = served.http()
    return _clients[served.url]


async def close_http() -> None:
    """Close all HTTP clients."""
    for client in _clients.values():
        await client.aclose()
    _clients.clear()


class WebSocketClient:
    def __init__(self, connection: ClientConnection, is_unidirectional: bool) -> None:
        self._connection = connection
        self._is_unidirectional = is_unidirectional

    async def connect(self) -> Outcome:
        if self._is_unidirectional:
            return await self._answer("{}", 1)
        return await self.call(1, "connect", {})

    async def call(self, number: int, method: str, params: Json) -> Outcome:
        return await self._answer(json.dumps({"id": number, method: params}), number)

    async def _answer(self, text: str, number: int) -> Outcome:
        try:
            await self._connection.send(text)
            while True:
                async with asyncio.timeout(SOON):
                    frame = await self._connection.recv()
                for line in str(frame).split("\n"):
                    if (outcome := outcome_of(json.loads(line), number)) is not None:
                        return outcome
        except ConnectionClosed as closed:
            return Outcome("closed", closed.rcvd.code if closed.rcvd is not None else 0)

    def abort(self) -> None:
        self._connection.transport.abort()


class StreamingClient:
    """Of http_stream and sse. Its connect command comes with the request of the stream."""

    def __init__(self, stream: StreamClient, http: httpx.AsyncClient) -> None:
        self._stream = stream
        self._http = http

    async def connect(self) -> Outcome:
        outcome = await self._answer(1)
        if outcome.kind == "ok":
            self._stream.session = outcome.value.get("session", "")
            self._stream.node = outcome.value["node"]
        return outcome

    async def call(self, number: int, method: str, params: Json) -> Outcome:
        body = {"session": self._stream.session, "node": self._stream.node}
        data = json.dumps({"id": number, method: params})
        response = await self._http.post("/emulation", json={**body, "data": data})
        assert response.status_code == 204
        return await self._answer(number)

    async def _answer(self, number: int) -> Outcome:
        while True:
            if (outcome := outcome_of(await self._stream.next(), number)) is not None:
                return outcome

    def abort(self) -> None:
        self._stream.writer.transport.abort()


class EventsClient:
    """Of `/events`. Its channel comes with its request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def connect(self) -> Outcome:
        async with asyncio.timeout(SOON):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            status = int(head.split(" ")[1])
            if status != 200:
                body = json.loads(await self._reader.read())
                return Outcome("status", (status, body["code"]))
            while line := (await self._reader.readline()).decode():
                if line.startswith("event: connect"):
                    return Outcome("ok", {})
        raise ConnectionResetError("the stream has no connect event")

    async def call(self, number: int, method: str, params: Json) -> Outcome:
        raise NotImplementedError

    def abort(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def client_of(
    transport: str, served: ServedNode, headers: Mapping[str, str], channel: str = "admit"
) -> AsyncIterator[Client]:
    """Open a connection. `transport` is its name in the metrics."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if transport in ("websocket", "asgi", "uni_websocket"):
        path = transport if transport == "uni_websocket" else "websocket"
        url = served.websocket_url.replace("/websocket", f"/{path}")
        async with connect(url, proxy=None, additional_headers=headers) as connection:
            yield WebSocketClient(connection, transport == "uni_websocket")
    elif transport == "sse":
        async with served.tcp() as (raw, writer):
            writer.write(f"GET /events?channel={channel} HTTP/1.0\r\nHost: here\r\n{lines}\r\n".encode())
            yield EventsClient(raw._reader, writer)
    else:
        kind = {"emulated_sse": "sse"}.get(transport, transport)
        commands = "{}" if transport.startswith("uni") else '{"id":1,"connect":{}}'
        async with streaming(served, kind, commands, headers=lines) as stream:
            yield StreamingClient(stream, http_of(served))
