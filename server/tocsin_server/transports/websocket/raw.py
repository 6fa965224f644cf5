"""WebSocket straight on the asyncio transport: `websockets`' sans-I/O core in, ready-made frames out.

uvicorn constructs `WebSocketProtocol` when a request asks for an upgrade
(`uvicorn.Config(ws=WebSocketProtocol)`), on the port that serves everything else. No task, queue or timer
belongs to a connection: fan-out writes the same bytes to each transport, the node keeps the deadline, and the
transport's own buffer is what waits for a slow peer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs, urlsplit

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.channel import ChannelMessage
from tocsin_server.errors import Disconnect
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import PONG, Ping, ServerMessage
from tocsin_server.transports.origins import is_allowed

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from tocsin_server.node.node import Node

PATH = "/connection/websocket"

_LOGGER = logging.getLogger(__name__)
_LOGGER.setLevel(logging.WARNING)  # the core tells of every connection it opens

CLOSE_SECONDS = 5.0
"""How long the peer may take to answer a close frame before the connection is dropped (protocol §8)."""

LINGER_SECONDS = 1.0
"""How long a peer that broke the protocol may take to read why, before its connection is dropped."""

JSON_SUBPROTOCOL = Subprotocol("centrifuge-json")
PROTOBUF_SUBPROTOCOL = "centrifuge-protobuf"


def text_frame(*lines: bytes) -> bytes:
    """One unmasked text frame of newline-separated lines."""
    return Frame(Opcode.TEXT, b"\n".join(lines)).serialize(mask=False)


def _select_subprotocol(_connection: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Most clients offer none (protocol §1); those that offer JSON are told that it was chosen."""
    return JSON_SUBPROTOCOL if JSON_SUBPROTOCOL in offered else None


def _is_utf8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


class RawFraming:
    """Items of a channel as one text frame: built once, written as it is to every peer."""

    def pack(self, _channel: str, items: Sequence[ChannelMessage]) -> bytes:
        """Return the frame."""
        return text_frame(*(JSON.wrap_push(item.encoded(JSON)) for item in items))


RAW_FRAMING = RawFraming()


class WebSocketProtocol(asyncio.Protocol):
    """What uvicorn hands an upgrade request to.

    It looks at the path: ours becomes a `WebSocketPeer`, any other is uvicorn's.

    The node is found in the lifespan state, under "node".
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._transport: asyncio.Transport
        self._chosen: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport until the request is read."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Choose by the request line, which uvicorn delivers whole, then step aside."""
        if self._chosen is None:
            self._chosen = self._choose(data)
            self._chosen.connection_made(self._transport)
            # uvicorn installs this object once it returns; the chosen one takes over before anything is read
            asyncio.get_running_loop().call_soon(self._transport.set_protocol, self._chosen)
        self._chosen.data_received(data)

    def _choose(self, request: bytes) -> asyncio.Protocol:
        target = request.split(b" ", 2)[1]
        node: Node | None = self._app_state.get("node")
        if node is not None and target.partition(b"?")[0] == self._config.root_path.encode() + PATH.encode():
            return WebSocketConnection(node, self._server_state.connections)
        return WebSocketsSansIOProtocol(self._config, self._server_state, self._app_state)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on a loss that came before the chosen protocol was in place."""
        if self._chosen is not None:
            self._chosen.connection_lost(exc)


class WebSocketConnection(asyncio.Protocol):
    """One WebSocket connection.

    handshake --accepted--> open --close frame sent or received--> closing --> lost
    """

    __slots__ = (
        "_close_timer",
        "_connection",
        "_connections",
        "_fragments",
        "_has_left",
        "_is_leaving",
        "_is_native_ping",
        "_is_paused",
        "_is_shaken",
        "_node",
        "_opcode",
        "_transport",
        "session",
        "write",
    )

    framing = RAW_FRAMING
    codec = JSON
    transport_name = "websocket"

    def __init__(self, node: Node, connections: set[Any]) -> None:
        self._node = node
        self._connections = connections
        self._connection = ServerProtocol(
            max_size=node.settings.client.message_limit_bytes,
            select_subprotocol=_select_subprotocol,
            logger=_LOGGER,
        )
        self._fragments = bytearray()
        self._opcode = Opcode.TEXT
        self._is_native_ping = False
        self._is_paused = False
        self._is_shaken = False
        self._is_leaving = False
        self._has_left = False
        self._close_timer: asyncio.TimerHandle | None = None
        self.session = node.new_session()

    # ----------------------------------------------------------------------------------------- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport from HTTP.

        What may wait for a slow peer is its write buffer, up to the configured limit.
        """
        self._transport = cast("asyncio.Transport", transport)
        self._allow()
        self.write: Callable[[bytes], object] = self._transport.write
        self._connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Tell the session, which leaves its channels."""
        self._connections.discard(self)
        if self._close_timer is not None:
            self._close_timer.cancel()
        self._node.handle_event(self, events.ConnectionLost())

    def pause_writing(self) -> None:
        """More waits than may: too slow. Not at once, since this is called in the midst of a write."""
        asyncio.get_running_loop().call_soon(
            self._node.handle_event, self, events.ServerDisconnect(errors.SLOW)
        )

    def shutdown(self) -> None:
        """Close because uvicorn's server stops."""
        self._node.handle_event(self, events.ServerDisconnect(errors.SHUTDOWN))

    def data_received(self, data: bytes) -> None:
        """Feed, take events, write, close if there is nothing more to come."""
        connection = self._connection
        connection.receive_data(data)
        for event in connection.events_received():
            if isinstance(event, Request):
                self._shake_hands(event)
            elif not self._take_frame(cast("Frame", event)):
                break
        if connection.state is State.OPEN or self._has_left:
            self._flush()
        else:  # the peer said goodbye or broke the protocol: what it asked for before is answered first
            self._is_leaving = True
            self._leave()
            if not self._has_left:
                self._expect_close(CLOSE_SECONDS)

    def _leave(self) -> None:
        """Answer the peer's goodbye, once nothing it asked for is left to answer."""
        if self._is_leaving and not self._has_left and not self.session.is_busy:
            self._has_left = True
            self._flush()
            self._node.handle_event(self, events.ConnectionLost())

    def eof_received(self) -> None:
        """The peer sends no more; asyncio closes the transport."""
        self._connection.receive_eof()

    # ---------------------------------------------------------------------------------------------- handshake

    def _shake_hands(self, request: Request) -> None:
        connection = self._connection
        headers = request.headers
        if not is_allowed(
            headers.get("Origin"), headers.get("Host", ""), self._node.settings.server.allowed_origins
        ):
            connection.send_response(
                connection.reject(403, "This origin may not connect (allowed_origins).\n")
            )
            return
        response = connection.accept(request)
        connection.send_response(response)
        if connection.state is not State.OPEN:
            return
        self._is_shaken = True
        self._flush()
        query = parse_qs(urlsplit(request.path).query)
        self._is_native_ping = query.get("cf_ws_frame_ping_pong") == ["true"]
        if self._is_native_ping:
            self.session = self._node.new_session(announces_pings=False)
        self._node.attach(self)
        offered = headers.get("Sec-WebSocket-Protocol", "")
        wants_protobuf = "protobuf" in (*query.get("format", ()), *query.get("cf_protocol", ()))
        if wants_protobuf or (connection.subprotocol is None and PROTOBUF_SUBPROTOCOL in offered):
            self._node.handle_event(self, events.ServerDisconnect(errors.INAPPROPRIATE_PROTOCOL))

    # ------------------------------------------------------------------------------------------------ reading

    def _take_frame(self, frame: Frame) -> bool:
        """Take one frame; False if nothing after it may be taken any more."""
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._opcode = frame.opcode
        if frame.opcode is Opcode.PONG and self._is_native_ping and self.session.awaits_pong:
            self._node.handle_event(self, events.Received([PONG]))
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return True
        if frame.fin and not self._fragments:
            return self._take_message(bytes(frame.data))
        self._fragments += (
            frame.data
        )  # joined at once: of however many, what is kept is what `max_size` counts
        if not frame.fin:
            return True
        message = bytes(self._fragments)
        self._fragments.clear()
        return self._take_message(message)

    def _take_message(self, message: bytes) -> bool:
        if self._opcode is Opcode.TEXT and not _is_utf8(message):  # RFC 6455 §8.1
            self._connection.fail(CloseCode.INVALID_DATA, "text is not UTF-8")
            return False
        self._node.receive(self, message)
        return True

    def pause_reading(self, is_busy: bool) -> None:
        """Read nothing more while commands wait for the engine."""
        if is_busy != self._is_paused and not self._transport.is_closing():
            self._is_paused = is_busy
            if is_busy:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()
        if self._is_leaving:
            asyncio.get_running_loop().call_soon(self._leave)

    # ------------------------------------------------------------------------------------------------ writing

    @property
    def _is_open(self) -> bool:
        """Whether messages may still be written: no close frame has been."""
        return self._is_shaken and not self._has_left

    @property
    def queued_bytes(self) -> int:
        """What the transport's buffer holds."""
        return self._transport.get_write_buffer_size()

    def send(self, messages: Sequence[ServerMessage]) -> None:
        """Write the session's messages as one frame."""
        if self._is_native_ping and any(isinstance(message, Ping) for message in messages):
            self._connection.send_ping(b"")
            self._flush()
            messages = [message for message in messages if not isinstance(message, Ping)]
        if messages and self._is_open:
            frame = text_frame(*map(JSON.encode, messages))
            if len(frame) > self._node.settings.client.queue_limit_bytes:
                self._allow(len(frame))
            self._transport.write(frame)
            self._node.metrics.sent_bytes.count += len(frame)

    def _allow(self, size: int = 0) -> None:
        """Let so much more wait than the limit, for one answer larger than it, such as a long recovery.

        A client closed for it would come back for the same.
        """
        limit = self._node.settings.client.queue_limit_bytes
        self._transport.set_write_buffer_limits(high=limit + size, low=limit // 4)

    def close(self, why: Disconnect) -> None:
        """Write the close frame after what waits, and drop the connection if it is not answered in time."""
        if self._has_left:
            return
        self._has_left = True
        if self._connection.state is State.OPEN:
            self._connection.send_close(why.code, why.reason)
            self._flush()
        elif not self._transport.is_closing():
            # the core has read on and would answer what came after, but the first reason counts
            self._connection.data_to_send()
            farewell = Frame(Opcode.CLOSE, Close(why.code, why.reason).serialize())
            self._transport.write(farewell.serialize(mask=False))
            self._end_writing()
        self._expect_close(CLOSE_SECONDS)
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()

    def _flush(self) -> None:
        """Write what the core has to say: handshake, pongs, close frames."""
        if self._transport.is_closing():
            return
        for data in self._connection.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._end_writing()
        if self._connection.close_expected():
            self._expect_close(CLOSE_SECONDS)

    def _end_writing(self) -> None:
        """Close, but not under a peer that still sends: a reset would take away what it has not read yet."""
        if self._connection.close_rcvd is None and self._is_shaken:
            self._expect_close(LINGER_SECONDS)
        else:
            self._transport.close()

    def _expect_close(self, seconds: float) -> None:
        if self._close_timer is None:
            loop = asyncio.get_running_loop()
            self._close_timer = loop.call_later(seconds, self._transport.abort)
