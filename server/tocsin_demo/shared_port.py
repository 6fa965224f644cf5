"""A node's share of the port that all nodes listen on (SO_REUSEPORT).

It replaces a load balancer that checks `/health/ready`: a node that is not ready closes its share, and the
operating system gives new connections to the other nodes. Established connections stay.
"""

import socket

from tocsin_demo.settings import HOST
from tocsin_server.serving.listening import BACKLOG
from tocsin_server.serving.registrations import Registrations
from tocsin_server.serving.server import Server


class SharedPort:
    """Closed at first. Its server must already listen on a socket of its own."""

    def __init__(self, server: Server, port: int) -> None:
        self._server = server
        self._port = port
        self._registrations: Registrations | None = None

    async def set_open(self, *, is_open: bool) -> None:
        """Open or close this share, unless it is so already. At its end no connection waits in its queue."""
        if is_open and self._registrations is None:
            shared = socket.create_server((HOST, self._port), backlog=BACKLOG, reuse_port=True)
            self._registrations = await self._server.accept(shared)
        elif not is_open and self._registrations is not None:
            self._registrations.accept_waiting()
            self._registrations.close()
            self._registrations = None
