"""The door: a node's share of the port that all nodes have in common.

What a load balancer does that looks at `/health/ready`: open while the node can do its work. Where it is
closed, the system leads new connections to the other nodes; those that have come through stay.
"""

import asyncio
import socket

from tocsin_demo.settings import HOST
from tocsin_server.serving.server import BACKLOG, Server


class Door:
    """Closed at first. The server it belongs to must listen already, elsewhere."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self._port = port
        self._listening: asyncio.Server | None = None

    async def stand(self, *, is_open: bool) -> None:
        """Open or close it, or leave it as it is."""
        if is_open and self._listening is None:
            self._listening = await self._open()
            self._server.servers.append(self._listening)  # which closes it when it drains
        elif not is_open and self._listening is not None:
            self._listening.close()
            self._server.servers.remove(self._listening)
            self._listening = None

    async def _open(self) -> asyncio.Server:
        shared = socket.create_server((HOST, self._port), backlog=BACKLOG, reuse_port=True)
        return await asyncio.get_running_loop().create_server(self._protocol, sock=shared, backlog=BACKLOG)

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes them for its own sockets."""
        config = self._server.config
        made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=self._server.server_state, app_state=self._server.lifespan.state
        )
        return made
