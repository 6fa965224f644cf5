"""Tocsin mounted at /push in a host: another FastAPI application, under a server that is not Tocsin's."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import hypercorn.asyncio
import uvicorn
from fastapi import FastAPI

from tests.server.transports.sse.stream_server import SETTINGS, Json
from tests.support.timing import SOON
from tocsin_server.app import create_app
from tocsin_server.config.loading import Settings
from tocsin_server.node.node import Node
from tocsin_server.node.operations import RpcMethod


async def _double(_user: str, params: Any) -> Any:
    return params * 2


def application(double: RpcMethod = _double, **sections: Json) -> tuple[FastAPI, Node]:
    """A host with a route of its own, whose lifespan runs the node."""
    merged = {name: {**SETTINGS.get(name, {}), **sections.get(name, {})} for name in {*SETTINGS, *sections}}
    tocsin = create_app(Settings.model_validate(merged), rpc_methods={"double": double})
    node: Node = tocsin.state.node

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with node.running():
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def index() -> str:
        return "the host's"

    app.mount("/push", tocsin)
    return app, node


class _Uvicorn(uvicorn.Server):
    def __init__(self, app: FastAPI) -> None:
        super().__init__(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


@dataclass
class Host:
    """Where a host listens, and how it is stopped, as by a signal."""

    authority: str
    stop: Callable[[], object]


@asynccontextmanager
async def under_uvicorn(app: FastAPI) -> AsyncIterator[Host]:
    """With uvicorn's own WebSocket implementation."""
    server = _Uvicorn(app)
    task = asyncio.create_task(server._serve())
    async with asyncio.timeout(SOON):
        await server.listening.wait()
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield Host(f"{host}:{port}", lambda: server.handle_exit(15, None))
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def under_hypercorn(app: FastAPI) -> AsyncIterator[Host]:
    """With a server that shares nothing with uvicorn."""
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    config = hypercorn.Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.errorlog = None
    stopping = asyncio.Event()
    task = asyncio.create_task(
        hypercorn.asyncio.serve(app, config, shutdown_trigger=stopping.wait)  # type: ignore[arg-type]
    )
    try:
        yield Host(f"127.0.0.1:{port}", stopping.set)
    finally:
        stopping.set()
        await task


Serve = Callable[[FastAPI], AbstractAsyncContextManager[Host]]
