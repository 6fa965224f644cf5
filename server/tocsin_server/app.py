"""The ASGI application: HTTP API, SSE, health, metrics and the portable WebSocket endpoint, around one node.

Served by `serving.py` it is the whole server. It can also be mounted in another Starlette or FastAPI
application, which then runs the node in its own lifespan:

    tocsin = create_app(settings)

    @asynccontextmanager
    async def lifespan(app):
        async with tocsin.state.node.running():
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/push", tocsin)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from tocsin_server.admin.health import health_routes
from tocsin_server.admin.pages import page_routes
from tocsin_server.api.routes import api_routes
from tocsin_server.config.loading import Settings
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.factory import create_engine
from tocsin_server.metrics.multiprocess import Colleagues
from tocsin_server.node.node import Node
from tocsin_server.node.operations import RpcMethod
from tocsin_server.transports.sse.endpoint import events_route
from tocsin_server.transports.websocket.asgi import websocket_route


class State(TypedDict):
    """What the lifespan gives every request, and `WebSocketProtocol`."""

    node: Node


def create_app(
    settings: Settings | None = None,
    *,
    engine: Engine | None = None,
    routes: Sequence[BaseRoute] = (),
    rpc_methods: Mapping[str, RpcMethod] | None = None,
    has_page: bool = False,
    colleagues: Colleagues | None = None,
) -> Starlette:
    """Build the application; its node is `app.state.node`, started by the lifespan.

    `routes` are an application's own and come first; `has_page` serves the demo page at `/`. `engine` is
    opened from the settings unless given. `colleagues` are the other workers on the same port, if there are
    any.
    """
    settings = settings or Settings()
    node = Node(settings, engine or create_engine(settings.engine), rpc_methods=rpc_methods)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(node.running())
            if colleagues is not None:
                await stack.enter_async_context(colleagues.answering(node.metrics.page))
            yield {"node": node}

    app = Starlette(
        routes=[
            *routes,
            websocket_route(node),
            events_route(node),
            *api_routes(node),
            *health_routes(node, colleagues),
            *(page_routes() if has_page else ()),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.node = node
    return app
