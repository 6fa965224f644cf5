"""Which WebSocket implementation serves an upgrade request, on the port that serves everything else.

Requests for Tocsin's path get the raw transport; an application's own WebSockets get uvicorn's
implementation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.utils import get_remote_addr
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tocsin_server.access import PUBLIC
from tocsin_server.transports.websocket.handshake import UNIDIRECTIONAL_WEBSOCKET_PATH, WEBSOCKET_PATH
from tocsin_server.transports.websocket.raw import UnidirectionalWebSocketConnection, WebSocketConnection

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from tocsin_server.node.connection import Connections


_KINDS: Mapping[str, type[WebSocketConnection]] = {
    WEBSOCKET_PATH: WebSocketConnection,
    UNIDIRECTIONAL_WEBSOCKET_PATH: UnidirectionalWebSocketConnection,
}
"""Which connection a path has."""


def _is_on(node: Connections, kind: type[WebSocketConnection]) -> bool:
    return node.settings.client.unidirectional or not kind.is_unidirectional


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
        """Choose by the request line, which uvicorn delivers whole, and pass the request on."""
        if self._chosen is None:
            self._chosen = self._choose(data)
            self._chosen.connection_made(self._transport)
            # uvicorn installs this object after this call; the chosen one replaces it before the next read
            asyncio.get_running_loop().call_soon(self._transport.set_protocol, self._chosen)
        self._chosen.data_received(data)

    def _choose(self, request: bytes) -> asyncio.Protocol:
        path = request.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")
        node: Connections | None = self._app_state.get("node")
        kind = _KINDS.get(path.removeprefix(self._config.root_path))
        is_public = self._app_state.get("address", PUBLIC) == PUBLIC
        if node is not None and kind is not None and is_public and _is_on(node, kind):
            return kind(node, self._server_state.connections, self._peer())
        return WebSocketsSansIOProtocol(self._config, self._server_state, self._app_state)

    def _peer(self) -> str:
        """The address of the peer, or what its proxy says at the beginning of the connection."""
        if (source := self._app_state.get("source")) is not None:
            return str(source.address)
        return (get_remote_addr(self._transport) or ("",))[0]

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on a loss that comes before the chosen protocol is installed."""
        if self._chosen is not None:
            self._chosen.connection_lost(exc)
