"""Which WebSocket implementation serves an upgrade request, on the port that serves everything else.

Requests for Tocsin's paths get the raw transport; an application's own WebSockets get uvicorn's
implementation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tocsin_server.access import PUBLIC
from tocsin_server.transports.refusals import log_refusal
from tocsin_server.transports.websocket.handshake import UNIDIRECTIONAL_WEBSOCKET_PATH, WEBSOCKET_PATH
from tocsin_server.transports.websocket.kinds import BIDIRECTIONAL, UNIDIRECTIONAL, Kind
from tocsin_server.transports.websocket.opening import OpeningRequest
from tocsin_server.transports.websocket.raw import WebSocketConnection

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from tocsin_server.node.connection import Connections


INVALID_HANDSHAKE = "The request is no valid WebSocket handshake."

_KINDS: Mapping[bytes, Kind] = {
    WEBSOCKET_PATH.encode(): BIDIRECTIONAL,
    UNIDIRECTIONAL_WEBSOCKET_PATH.encode(): UNIDIRECTIONAL,
}
"""Which kind of connection a path has."""


def kinds_of(node: Connections, root_path: str) -> Mapping[bytes, Kind]:
    """Which kind of connection a path has, with the prefix of a mounted application or without it."""
    kinds = {
        path: kind
        for path, kind in _KINDS.items()
        if node.settings.client.unidirectional or not kind.is_unidirectional
    }
    return kinds | {root_path.encode() + path: kind for path, kind in kinds.items()}


class WebSocketProtocol(asyncio.Protocol):
    """The protocol that uvicorn gives an upgrade request to (`uvicorn.Config(ws=WebSocketProtocol)`).

    It reads the path, chooses another protocol, and hands the transport over to that. The node is found in
    the lifespan state, under "node".
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
        """Keep the transport until the request is read."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Choose by the request, which uvicorn delivers whole."""
        if self._chosen is not None or self._transport.is_closing():
            return
        request_line, *lines = data.split(b"\r\n")[:-2]
        method, target, _ = request_line.split(b" ", 2)
        path, _, query = target.partition(b"?")
        node: Connections | None = self._app_state.get("node")
        is_public = self._app_state.get("address", PUBLIC) == PUBLIC
        kind = None
        if node is not None and is_public:
            kind = kinds_of(node, self._config.root_path).get(path)
        if node is None or kind is None:
            self._chosen = WebSocketsSansIOProtocol(self._config, self._server_state, self._app_state)
            self._chosen.connection_made(self._transport)
            self._chosen.data_received(data)
            if not self._chosen.handshake_initiated:
                self._refuse_unread(node)
        else:
            headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
            request = OpeningRequest(method, query, headers)
            self._chosen = connection = WebSocketConnection(node, self._server_state.connections)
            connection.connection_made(self._transport)
            connection.answer(kind, request, self._peer())
        # uvicorn installs this object after this call; the chosen one replaces it before the next read
        asyncio.get_running_loop().call_soon(self._hand_over)

    def _hand_over(self) -> None:
        if self._chosen is not None:  # a lost transport would keep it, and it the transport
            self._transport.set_protocol(self._chosen)

    def _refuse_unread(self, node: Connections | None) -> None:
        """Refuse a request that `websockets` does not read, such as one with a body. uvicorn would wait."""
        if node is not None:
            log_refusal(node, "http", HTTPStatus.BAD_REQUEST, INVALID_HANDSHAKE, self._peer())
        self._transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self._transport.close()

    def _peer(self) -> str:
        """The address of the peer, or what its proxy says at the beginning of the connection."""
        if (source := self._app_state.get("source")) is not None:
            return str(source.address)
        return (get_remote_addr(self._transport) or ("",))[0]

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on a loss that comes before the chosen protocol is installed."""
        if self._chosen is not None:
            self._chosen.connection_lost(exc)
            self._chosen = None
