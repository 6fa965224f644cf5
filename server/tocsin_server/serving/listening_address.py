"""One listening address of a server, public or that of [admin]: its TLS, its proxies, its connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tocsin_server.access import PUBLIC
from tocsin_server.app import TocsinApp
from tocsin_server.config.admin_options import AdminOptions
from tocsin_server.config.options import ServerOptions
from tocsin_server.serving.accepted_connection import AcceptedConnection, AcceptedConnections
from tocsin_server.serving.certificate import ServerCertificate
from tocsin_server.serving.direct_calls import DirectCalls
from tocsin_server.serving.first_request import FirstRequest, FirstRequests
from tocsin_server.serving.http_limits import HttpProtocol
from tocsin_server.serving.listening import BACKLOG
from tocsin_server.transports.client_address import TrustedProxies
from tocsin_server.transports.websocket.raw import WebSocketConnection

if TYPE_CHECKING:
    from tocsin_server.serving.proxy_header import Source
    from tocsin_server.serving.server import Server


class ListeningAddress:
    """Where a server accepts connections. `address` is PUBLIC or ADMIN, and requests find it in their state.

    The mutable state is the state of requests, which `protocols` makes.
    """

    def __init__(self, server: Server, address: str, options: ServerOptions | AdminOptions) -> None:
        """Raises ValueError if the certificate cannot be used."""
        self._server = server
        self._address = address
        self.certificate: ServerCertificate | None = None
        if options.tls_certificate or options.tls_key:
            self.certificate = ServerCertificate(options.tls_certificate, options.tls_key)
        self._proxies = _proxies_of(options)
        self._state: dict[str, Any] = {}
        self._direct_calls: DirectCalls | None = None

    @property
    def is_tls(self) -> bool:
        """Whether it serves TLS."""
        return self.certificate is not None

    async def serve(self, sock: socket.socket) -> asyncio.Server:
        """Accept connections on a listening socket, once the application has started."""
        return await asyncio.get_running_loop().create_server(self.protocols(), sock=sock, backlog=BACKLOG)

    def protocols(self) -> Callable[[], asyncio.BaseProtocol]:
        """What makes the protocol of each connection, once the application has started."""
        self._state = {**self._server.lifespan.state, "address": self._address, "server": self._server}
        app = self._server.config.app
        if type(app) is TocsinApp:  # another class may answer before it, or in its place
            direct_api = app.direct_api(self._address)
            if direct_api is not None:
                self._direct_calls = DirectCalls(direct_api, self._server.server_state)
        context = self.certificate.context if self.certificate is not None else None
        make: Callable[..., WebSocketConnection | HttpProtocol] = self._new_http
        if self._address == PUBLIC:
            make = FirstRequests(self._server, self._new_http).new
        if self._proxies is None and context is None:
            return make
        accepted = AcceptedConnections(
            make,
            self._server.node,
            self._server.server_state.connections,
            self._server.refused,
            proxies=self._proxies,
            context=context,
            is_limited=self._address == PUBLIC,
        )
        return accepted.new_connection

    def _new_http(
        self, source: Source | None = None, accepted: AcceptedConnection | FirstRequest | None = None
    ) -> HttpProtocol:
        """The protocol of a connection, which comes from `source` if its proxy says so."""
        state = self._state if source is None else {**self._state, "source": source}
        http = HttpProtocol(self._server.config, self._server.server_state, state, self._direct_calls)
        http.accepted = accepted
        return http


def _proxies_of(options: ServerOptions | AdminOptions) -> TrustedProxies | None:
    """The proxies that name the client at the beginning of each connection, if they do."""
    if isinstance(options, ServerOptions) and options.proxy_protocol:
        return TrustedProxies(options.trusted_proxies)
    return None
