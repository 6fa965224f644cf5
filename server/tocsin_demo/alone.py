"""One node, in the command's own process, which has no neighbours and no use for Redis."""

import socket
from collections.abc import Callable
from pathlib import Path

from tocsin_demo.application import application
from tocsin_demo.cluster import Cluster
from tocsin_demo.settings import Ground, demo_settings
from tocsin_server.app import create_app
from tocsin_server.serving.server import Server

NAME = "node-1"


async def run(listener: socket.socket, ground: Ground, on_ready: Callable[[str], None]) -> None:
    """Serve on this socket until a signal comes; `on_ready` is called with the address once it listens."""
    async with application(
        Path(ground.database), ground.url, ground.api_key, ground.token_secret, Cluster(NAME)
    ) as routes:
        settings = demo_settings(ground, NAME)
        app = create_app(settings, routes=routes, has_page=True)
        await Server(app, settings.server, on_ready).serve(sockets=[listener])
