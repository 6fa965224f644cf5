"""WebSocket over ASGI, for an application that Tocsin is mounted in, under any ASGI server.

The session is the same as on the raw transport. Writes are slower, since each message to each client is
awaited. Two tasks belong to a connection: the server's own writes, another reads.

The mutable state is that of `AsgiConnection`: its session and send_queue, whether it may read, and why it
closes. Its own tasks and the node change it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

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
from tocsin_server.node.client_request import ClientRequest, joined
from tocsin_server.node.connection import Connections
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import ServerMessage
from tocsin_server.protocol.protobuf.codec import PROTOBUF
from tocsin_server.protocol.unidirectional import UNIDIRECTIONAL_JSON
from tocsin_server.transports.origins import ORIGIN_REFUSED, origin_is_allowed, origin_is_named
from tocsin_server.transports.refusals import log_refusal
from tocsin_server.transports.send_queue import FLUSH_SECONDS, SendQueue
from tocsin_server.transports.websocket.handshake import (
    UNIDIRECTIONAL_WEBSOCKET_PATH,
    WEBSOCKET_PATH,
    Handshake,
    recovery_refusal,
)

NO_UPGRADE = (
    "This is a WebSocket endpoint. Connect with a WebSocket client. If this is one, a proxy before this "
    "server does not pass the headers Upgrade and Connection on."
)

MESSAGES_PER_TURN = 16
"""How many messages of a connection are taken in one turn of the event loop."""

TOO_BIG = Disconnect(int(CloseCode.MESSAGE_TOO_BIG), "message size limit")
"""RFC 6455 §7.4.1. On the raw transport `websockets` sends it."""


def websocket_route(connections: Connections) -> BaseRoute:
    """The route of the endpoint; it answers plain HTTP requests too."""
    return _Route(WEBSOCKET_PATH, WebSocketEndpoint(connections))


def unidirectional_websocket_route(connections: Connections) -> BaseRoute:
    """The route of the unidirectional endpoint."""
    return _Route(UNIDIRECTIONAL_WEBSOCKET_PATH, WebSocketEndpoint(connections, UnidirectionalAsgiConnection))


class _Route(WebSocketRoute):
    """A route that matches both kinds of scope, HTTP and WebSocket."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_request = scope["type"] in ("http", "websocket")
        return super().matches({**scope, "type": "websocket"}) if is_request else (Match.NONE, {})


class WebSocketEndpoint:
    """The endpoint, as an ASGI application."""

    def __init__(self, connections: Connections, kind: type[AsgiConnection] | None = None) -> None:
        self._connections = connections
        self._kind = kind or AsgiConnection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection until it ends."""
        if scope["type"] == "http":
            self._log_refusal(scope, HTTPStatus.BAD_REQUEST, NO_UPGRADE)
            await PlainTextResponse(f"{NO_UPGRADE}\n", HTTPStatus.BAD_REQUEST)(scope, receive, send)
            return
        await receive()  # websocket.connect
        if refused := self._refusal(scope):
            self._log_refusal(scope, *refused)
            await _refuse(scope, send, *refused)
            return
        key = self._connections.admission.key_of(client_address(scope))
        if no := self._connections.admit(key):
            await _refuse(scope, send, HTTPStatus.SERVICE_UNAVAILABLE, no.reason, no.retry_after)
            return
        try:
            handshake = Handshake.read(scope["query_string"].decode("latin-1"), scope["subprotocols"])
            await send({"type": "websocket.accept", "subprotocol": handshake.subprotocol})
            await self._open(handshake, scope).serve(receive, send)
        finally:
            self._connections.admission.leave(key)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and reason of a refusal."""
        request = HTTPConnection(scope)
        if not origin_is_allowed(request, self._connections.limits.allowed_origins):
            return 403, ORIGIN_REFUSED
        query = scope["query_string"].decode("latin-1")
        sentence = recovery_refusal(query, request.headers.keys())
        return (400, sentence) if sentence else None

    def _log_refusal(self, scope: Scope, status: int, reason: str) -> None:
        transport = self._kind.transport_name
        log_refusal(self._connections, transport, status, reason, client_address(scope))

    def _open(self, handshake: Handshake, scope: Scope) -> AsgiConnection:
        """Attach the accepted connection. Its session sends no pings where the server sends ping frames."""
        session = self._connections.new_session(
            sends_pings=not handshake.uses_ping_frames,
            wants_pong=not self._kind.is_unidirectional,
            is_unidirectional=self._kind.is_unidirectional,
        )
        connection = self._kind(self._connections, session, client_address(scope), handshake.codec)
        if (kept := self._connections.kept_headers) is not None:
            request = HTTPConnection(scope)
            connection.request = kept.request(
                connection.transport_name,
                handshake.codec.name,
                connection.address,
                joined(request.headers.raw),
                scope["query_string"].decode("latin-1"),
                cookies_count=origin_is_named(request, self._connections.limits.allowed_origins),
            )
        self._connections.attach(connection)
        if why := handshake.disconnect_of(is_unidirectional=connection.is_unidirectional):
            self._connections.handle_event(connection, events.ServerDisconnect(why))
        return connection


async def _refuse(scope: Scope, send: Send, status: int, sentence: str, retry_after: int = 0) -> None:
    """Refuse a handshake. A server without the extension for responses answers each with 403."""
    if "websocket.http.response" in scope.get("extensions", {}):
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        if retry_after:
            headers.append((b"retry-after", str(retry_after).encode("ascii")))
        await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": f"{sentence}\n".encode()})
    else:
        await send({"type": "websocket.close"})


def client_address(scope: Scope) -> str:
    """The address of a request's client, as the server knows it. Empty: it does not."""
    client = scope.get("client")
    return str(client[0]) if client else ""


class AsgiFraming:
    """Messages of a channel as the content of one WebSocket message, made once for all subscribers."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def pack(self, _channel: str, messages: Sequence[ChannelMessage]) -> bytes:
        """Return the content. Raises PayloadNotJson."""
        codec = self.codec
        return codec.join([codec.wrap_push(message.encoded(codec)) for message in messages])


_FRAMINGS: Mapping[Codec, AsgiFraming] = {codec: AsgiFraming(codec) for codec in (JSON, PROTOBUF)}


class AsgiConnection:
    """One WebSocket connection that was accepted."""

    __slots__ = (
        "_connections",
        "_disconnect",
        "_may_read",
        "_send_queue",
        "address",
        "framing",
        "request",
        "session",
    )

    framings = _FRAMINGS
    transport_name = "asgi"
    is_unidirectional = False

    def __init__(
        self, connections: Connections, session: Session, address: str = "", codec: Codec = JSON
    ) -> None:
        self.address = address
        self.request: ClientRequest | None = None
        self.framing = self.framings[codec]
        self._connections = connections
        self._send_queue = SendQueue(
            connections.limits.queue_bytes,
            separator=codec.separator,
            on_behind=lambda: connections.client_is_behind(self),
            on_caught_up=lambda: connections.client_caught_up(self),
        )
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._disconnect: Disconnect | None = None
        self.session = session

    # ------------------------------------------------------------------------------------ the node's side

    @property
    def codec(self) -> Codec:
        """The codec that the handshake chose."""
        return self.framing.codec

    @property
    def queued_bytes(self) -> int:
        """How many bytes the send_queue holds."""
        return self._send_queue.queued_bytes

    @property
    def is_behind(self) -> bool:
        """Whether more than BEHIND_BYTES are queued, although the server sends."""
        return self._send_queue.is_behind

    @property
    def taken_bytes(self) -> int:
        """How many bytes the server has taken."""
        return self._send_queue.taken_bytes

    @property
    def sending_bytes(self) -> int:
        """The size of the message that the server is sending."""
        return self._send_queue.sending_bytes

    def write(self, content: bytes) -> None:
        """Queue what `framing` packed."""
        self._put(content)

    def _put(self, content: bytes) -> None:
        self._send_queue.put(content)
        if self._send_queue.is_overfull:
            slow = events.ServerDisconnect(errors.SLOW)
            asyncio.get_running_loop().call_soon(self._connections.handle_event, self, slow)

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Queue the session's messages."""
        content = self.codec.join([*map(self.codec.encode, messages)])
        self._connections.count_sent(len(content))
        self._put(content)

    def close(self, disconnect: Disconnect) -> None:
        """Write what is queued, unless the client is too slow for it, then close with this code."""
        self._disconnect = disconnect
        if disconnect is errors.SLOW:
            self._send_queue.drop()
        self._send_queue.end(within_seconds=FLUSH_SECONDS)

    def drop(self) -> None:
        """Discard what is queued, and end at once."""
        self._send_queue.drop()
        self._send_queue.end(within_seconds=0)

    def pause_reading(self, is_busy: bool) -> None:
        """Stop reading while commands of the client wait; read again once none does."""
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
                await self._send_queue.run_writer(self._write_all(send))
                reading.cancel()
        finally:
            self._connections.handle_event(self, events.ConnectionLost())
            self._connections.client_caught_up(self)
            self._send_queue.detach()

    async def _read(self, receive: Receive) -> None:
        count = 0
        while (message := await receive())["type"] == "websocket.receive":
            self._take(message)
            count += 1
            if not count % MESSAGES_PER_TURN:
                await asyncio.sleep(0)  # the server may have many messages, and then none of this waits
            await self._may_read.wait()
        self.drop()

    def _take(self, message: Any) -> None:
        text = message.get("text")
        data = message["bytes"] if text is None else text.encode()
        if len(data) > self._connections.limits.message_bytes:
            self._connections.handle_event(self, events.ServerDisconnect(TOO_BIG))
        else:
            self._connections.receive(self, data)

    async def _write_all(self, send: Send) -> None:
        async for content in self._send_queue:
            for part in self._messages_of(content):
                message = {"text": part.decode()} if self.codec.is_text else {"bytes": part}
                await send({"type": "websocket.send", **message})
        if self._disconnect is not None:
            close = {"code": self._disconnect.code, "reason": self._disconnect.reason}
            await send({"type": "websocket.close", **close})

    def _messages_of(self, content: bytes) -> Sequence[bytes]:
        """The WebSocket messages that carry what is queued."""
        return (content,)


_UNIDIRECTIONAL_FRAMING = AsgiFraming(UNIDIRECTIONAL_JSON)


class UnidirectionalAsgiConnection(AsgiConnection):
    """A connection whose client sends one connect request, and gets each push as a WebSocket message."""

    __slots__ = ()

    framings = dict.fromkeys(_FRAMINGS, _UNIDIRECTIONAL_FRAMING)
    transport_name = "uni_websocket"
    is_unidirectional = True

    def _messages_of(self, content: bytes) -> Sequence[bytes]:
        return content.split(b"\n")
