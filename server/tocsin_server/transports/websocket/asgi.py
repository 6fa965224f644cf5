"""WebSocket over ASGI: for whoever mounts Tocsin in another application, under whatever server that has.

The same session as on the raw transport, with slower writes, since every message to every peer is awaited.
Two tasks belong to a connection: the server's own writes, another reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Match, WebSocketRoute
from starlette.types import Receive, Scope, Send
from websockets.frames import CloseCode

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.core.session import Session
from tocsin_server.errors import Disconnect
from tocsin_server.node.node import Node
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import ServerMessage
from tocsin_server.transports.cors import origin_is_allowed
from tocsin_server.transports.outbox import Outbox
from tocsin_server.transports.websocket.raw import (
    CLOSE_SECONDS,
    JSON_SUBPROTOCOL,
    PATH,
    PROTOBUF_SUBPROTOCOL,
)

TOO_BIG = Disconnect(CloseCode.MESSAGE_TOO_BIG, "message size limit")
"""RFC 6455 §7.4.1; the raw transport's core sends it by itself."""


def websocket_route(node: Node) -> BaseRoute:
    """The route of the endpoint, and of plain requests that go astray there."""
    return _Route(PATH, WebSocketEndpoint(node))


class _Route(WebSocketRoute):
    """A route of both kinds of scope."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_ours = scope["type"] in ("http", "websocket")
        return super().matches({**scope, "type": "websocket"}) if is_ours else (Match.NONE, {})


class WebSocketEndpoint:
    """The endpoint, as an ASGI application."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it ends."""
        if scope["type"] == "http":
            sentence = "This is a WebSocket endpoint; a plain request has no business here.\n"
            await PlainTextResponse(sentence, 400)(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        await receive()  # websocket.connect
        if not origin_is_allowed(connection, self._node.settings.server.allowed_origins):
            await send({"type": "websocket.close"})  # before it is accepted: servers answer 403
            return
        offered = scope["subprotocols"]
        subprotocol = JSON_SUBPROTOCOL if JSON_SUBPROTOCOL in offered else None
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        query = parse_qs(connection.url.query)
        peer = AsgiConnection(self._node, self._new_session(query))
        self._node.attach(peer)
        wants_protobuf = "protobuf" in (*query.get("format", ()), *query.get("cf_protocol", ()))
        if wants_protobuf or (subprotocol is None and PROTOBUF_SUBPROTOCOL in offered):
            self._node.handle_event(peer, events.ServerDisconnect(errors.INAPPROPRIATE_PROTOCOL))
        await peer.serve(receive, send)

    def _new_session(self, query: dict[str, list[str]]) -> Session:
        """One that does not ping where the client wants the server's own ping frames (protocol §1)."""
        return self._node.new_session(sends_pings=query.get("cf_ws_frame_ping_pong") != ["true"])


class LineFraming:
    """Items of a channel as lines of a message, joined once for all peers."""

    def pack(self, _channel: str, items: Sequence[ChannelMessage]) -> bytes:
        """Return the lines."""
        return b"\n".join(JSON.wrap_push(item.encoded(JSON)) for item in items)


LINE_FRAMING = LineFraming()


class AsgiConnection:
    """One WebSocket connection that was accepted."""

    __slots__ = ("_may_read", "_node", "_outbox", "_why", "session")

    codec = JSON
    framing = LINE_FRAMING
    transport_name = "asgi"

    def __init__(self, node: Node, session: Session) -> None:
        self._node = node
        self._outbox = Outbox(node.settings.client.queue_limit_bytes, separator=b"\n")
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._why: Disconnect | None = None
        self.session = session

    # ------------------------------------------------------------------------------------ the node's side

    @property
    def queued_bytes(self) -> int:
        """What its outbox holds."""
        return self._outbox.waiting_bytes

    def write(self, lines: bytes) -> None:
        """Let lines wait to be written."""
        self._put(lines)

    def _put(self, lines: bytes, *, is_owed: bool = False) -> None:
        self._outbox.put(lines, is_owed=is_owed)
        if self._outbox.is_overfull:
            slow = events.ServerDisconnect(errors.SLOW)
            asyncio.get_running_loop().call_soon(self._node.handle_event, self, slow)

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Let the session's messages wait to be written.

        One answer may be larger than what may wait, such as a long recovery: a client closed for it would
        come back for the same.
        """
        lines = b"\n".join(map(JSON.encode, messages))
        self._node.metrics.sent_bytes.count += len(lines)
        is_large = len(lines) > self._node.settings.client.queue_limit_bytes
        self._put(lines, is_owed=is_large and not self._outbox.is_owing)

    def close(self, why: Disconnect) -> None:
        """Write what waits, unless the peer is too slow for it, then close with this code."""
        self._why = why
        if why is errors.SLOW:
            self._outbox.drop()
        self._outbox.end(within_seconds=CLOSE_SECONDS)

    def pause_reading(self, is_busy: bool) -> None:
        """Read nothing more while commands wait for the engine."""
        if is_busy:
            self._may_read.clear()
        else:
            self._may_read.set()

    # ------------------------------------------------------------------------------------ the server's side

    async def serve(self, receive: Receive, send: Send) -> None:
        """Read and write until either side closes."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(receive))
                await self._outbox.keep_limit(self._write_all(send))
                reading.cancel()
        finally:
            self._node.handle_event(self, events.ConnectionLost())

    async def _read(self, receive: Receive) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            self._take(message)
            await self._may_read.wait()
        self._outbox.drop()
        self._outbox.end(within_seconds=0)

    def _take(self, message: Any) -> None:
        text = message.get("text")
        data = message["bytes"] if text is None else text.encode()
        if len(data) > self._node.settings.client.message_limit_bytes:
            self._node.handle_event(self, events.ServerDisconnect(TOO_BIG))
        else:
            self._node.receive(self, data)

    async def _write_all(self, send: Send) -> None:
        async for lines in self._outbox:
            await send({"type": "websocket.send", "text": lines.decode()})
        if self._why is not None:
            await send({"type": "websocket.close", "code": self._why.code, "reason": self._why.reason})
