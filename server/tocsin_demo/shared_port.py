"""A node's share of the port that all nodes listen on (SO_REUSEPORT).

It replaces a load balancer that checks `/health/ready`: a node that is not ready closes its share, and the
operating system gives new connections to the other nodes. Established connections stay.
"""

import asyncio
import socket

from tocsin_demo.settings import HOST
from tocsin_server.serving.listening import BACKLOG
from tocsin_server.serving.server import Server


class SharedPort:
    """Closed at first. Its server must already listen on a socket of its own."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self._port = port
        self._listener: asyncio.Server | None = None

    async def set_open(self, *, is_open: bool) -> None:
        """Open or close this share, unless it is so already."""
        if is_open and self._listener is None:
            self._listener = await self._listen()
            self._server.servers.append(self._listener)  # so that the server closes it when it drains
        elif not is_open and self._listener is not None:
            self._listener.close()
            self._server.servers.remove(self._listener)
            self._listener = None

    async def _listen(self) -> asyncio.Server:
        shared = socket.create_server((HOST, self._port), backlog=BACKLOG, reuse_port=True)
        return await asyncio.get_running_loop().create_server(self._protocol, sock=shared, backlog=BACKLOG)

    def _protocol(self) -> asyncio.Protocol:
        """Create a protocol as uvicorn does for its own sockets."""
        config = self._server.config
        protocol: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self._server.server_state, app_state=self._server.lifespan.state
        )
        return protocol
