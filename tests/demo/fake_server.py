"""A server for tests of the browser client: the test receives every command and writes every reply.

One server has an endpoint for each test. It also serves the files of `static/`, so that a page of it can
import the module under test.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.support.timing import SOON

STATIC = Path(__file__).parents[2] / "static"

Json = dict[str, Any]


def publication(offset: int, channel: str = "news", **more: Any) -> Json:
    """A publication push."""
    return {"push": {"channel": channel, "pub": {"data": {"n": offset}, "offset": offset, **more}}}


def subscribe_reply(command: Json, offset: int, epoch: str = "e", **more: Any) -> Json:
    """The reply to a subscribe command, with the top of the history at `offset`."""
    result = {"recoverable": True, "positioned": True, "epoch": epoch, "offset": offset}
    return {"id": command["id"], "subscribe": {**result, **more}}


class Connection:
    """One WebSocket of the client."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self.is_over = asyncio.Event()

    async def receive(self) -> list[Json]:
        """Return the lines of the next frame."""
        async with asyncio.timeout(SOON):
            frame = await self._websocket.receive_text()
        return [json.loads(line) for line in frame.split("\n")]

    async def send(self, *lines: Json) -> None:
        """Send the lines in one frame."""
        await self.send_text("\n".join(json.dumps(line) for line in lines))

    async def send_text(self, frame: str) -> None:
        await self._websocket.send_text(frame)

    async def accept_connect(self, **result: Any) -> list[Json]:
        """Reply to the connect command, and return the other commands of its frame."""
        connect, *others = await self.receive()
        await self.send({"id": connect["id"], "connect": {"client": "c", "version": "1", **result}})
        return others

    async def wait_until_closed(self) -> None:
        """Wait until the client closes the connection."""
        async with asyncio.timeout(SOON):
            try:
                while True:
                    await self._websocket.receive_text()
            except WebSocketDisconnect:
                self.is_over.set()

    def release(self) -> None:
        self.is_over.set()

    async def close(self, code: int, reason: str) -> None:
        await self._websocket.close(code, reason)
        self.is_over.set()


class Stream:
    """One event stream of the client, with its request."""

    def __init__(self, request: Request) -> None:
        self.query = dict(request.query_params)
        self.last_event_id = request.headers.get("last-event-id")
        self._chunks: asyncio.Queue[str | None] = asyncio.Queue()

    def send(self, data: Json, position: str | None = None, event: str = "message") -> None:
        head = "" if position is None else f"id: {position}\n"
        self._chunks.put_nowait(f"event: {event}\n{head}data: {json.dumps(data)}\n\n")

    def end(self, retry_milliseconds: int = 10) -> None:
        """End the response; the browser reconnects after this time."""
        self._chunks.put_nowait(f"retry: {retry_milliseconds}\n\n")
        self._chunks.put_nowait(None)

    def release(self) -> None:
        self._chunks.put_nowait(None)

    async def chunks(self) -> AsyncIterator[str]:
        yield ": hello\n\n"
        while (chunk := await self._chunks.get()) is not None:
            yield chunk


class Endpoint:
    """The connections of the client in one test."""

    def __init__(self, url: str, number: int) -> None:
        self.url = url
        self.events_url = f"{url}/events/{number}"
        self.websocket_url = f"{url.replace('http', 'ws')}/ws/{number}"
        self.refuses_streams = False
        self._open: list[Connection | Stream] = []
        self._connections: asyncio.Queue[Connection] = asyncio.Queue()
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()

    async def connection(self) -> Connection:
        """The next WebSocket that the client opens."""
        async with asyncio.timeout(SOON):
            return await self._connections.get()

    async def stream(self) -> Stream:
        """The next event stream that the client opens."""
        async with asyncio.timeout(SOON):
            return await self._streams.get()

    async def on_websocket(self, websocket: WebSocket) -> None:
        await websocket.accept()
        connection = Connection(websocket)
        self._connections.put_nowait(connection)
        self._open.append(connection)
        await connection.is_over.wait()

    def close(self) -> None:
        """Close everything that is still open."""
        for one in self._open:
            one.release()

    async def on_events(self, request: Request) -> Response:
        stream = Stream(request)
        self._streams.put_nowait(stream)
        self._open.append(stream)
        if self.refuses_streams:
            return PlainTextResponse("no", status_code=401)
        return StreamingResponse(stream.chunks(), media_type="text/event-stream")


class FakeServer:
    """The server, once it listens, and its endpoints."""

    def __init__(self) -> None:
        self.url = ""
        self._endpoints: list[Endpoint] = []

    def endpoint(self) -> Endpoint:
        """A new endpoint."""
        endpoint = Endpoint(self.url, len(self._endpoints))
        self._endpoints.append(endpoint)
        return endpoint

    def close(self) -> None:
        for endpoint in self._endpoints:
            endpoint.close()

    async def on_websocket(self, websocket: WebSocket) -> None:
        await self._endpoints[websocket.path_params["number"]].on_websocket(websocket)

    async def on_events(self, request: Request) -> Response:
        endpoint: Endpoint = self._endpoints[request.path_params["number"]]
        return await endpoint.on_events(request)


async def on_page(_request: Request) -> Response:
    """An empty page with an inline icon, which the browser does not request."""
    return HTMLResponse("<!doctype html><link rel=icon href=data:,><title>A page</title>")


class Server(uvicorn.Server):
    """Sets an event when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_listening.set()


@asynccontextmanager
async def running_fake_server() -> AsyncIterator[FakeServer]:
    """Run the server on a free port of this machine."""
    fake_server = FakeServer()
    app = Starlette(
        routes=[
            WebSocketRoute("/ws/{number:int}", fake_server.on_websocket),
            Route("/events/{number:int}", fake_server.on_events),
            Route("/page", on_page),
            Mount("/", StaticFiles(directory=STATIC)),
        ]
    )
    config = uvicorn.Config(
        app, port=0, lifespan="off", log_config=None, ws="websockets-sansio", timeout_graceful_shutdown=1
    )
    server = Server(config)
    task = asyncio.create_task(server._serve())
    await server.is_listening.wait()
    fake_server.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield fake_server
    finally:
        fake_server.close()
        server.should_exit = True
        await task
