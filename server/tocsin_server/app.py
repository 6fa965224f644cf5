"""The ASGI application around one node: HTTP API, streams, emulation, WebSocket over ASGI, health, metrics.

`serving/server.py` serves it as the whole server. Another Starlette or FastAPI application can also mount it.
That application then runs the node in its own lifespan:

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
from typing import Any, TypedDict, cast

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from tocsin_server.access import AccessControl, ClientOfRequest, DirectApi
from tocsin_server.admin.health import health_routes
from tocsin_server.admin.pages import page_routes
from tocsin_server.api.application import Api, ApiFirst, api_routes
from tocsin_server.api.auth import ApiKeys
from tocsin_server.config.loading import Settings
from tocsin_server.config.options import ServerOptions
from tocsin_server.engine.engine import Engine
from tocsin_server.engine.factory import create_engine, digest_of_histories
from tocsin_server.hooks.assembly import deliveries_of
from tocsin_server.hooks.dispatcher import HookDispatcher
from tocsin_server.hooks.event_handlers import EventHandlers
from tocsin_server.hooks.proxy.proxies import Proxies
from tocsin_server.hooks.registry import Hooks
from tocsin_server.metrics.multiprocess import WorkerMetrics
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.node import Node
from tocsin_server.node.operations import RpcMethod
from tocsin_server.sources.sources import add_sources
from tocsin_server.transports.emulation.endpoint import emulation_route
from tocsin_server.transports.sse.endpoint import events_route
from tocsin_server.transports.streams.endpoint import stream_routes
from tocsin_server.transports.websocket.asgi import unidirectional_websocket_route, websocket_route


class State(TypedDict):
    """The lifespan state: every request and every `WebSocketProtocol` finds the node there."""

    node: Node


class TocsinApp(Starlette):
    """All routes around one node. Calls of the API take a direct way if nothing else may want them.

    `hooks` are the functions that decide about what clients ask for. Routes of an embedding application may
    be below `/api`, too, and its middleware sees every request.
    """

    def __init__(
        self,
        options: ServerOptions,
        api: Api,
        access: AccessControl,
        hooks: Hooks,
        *,
        has_other_routes: bool,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self.hooks = hooks
        self._options = options
        self._api = api
        self._access = access
        self._clients: ClientOfRequest | None = None
        self._has_other_routes = has_other_routes

    @property
    def _is_api_direct(self) -> bool:
        return not (self._has_other_routes or self.user_middleware)

    def build_middleware_stack(self) -> ASGIApp:
        """As Starlette calls it once, before the lifespan starts. Middleware cannot be added afterwards."""
        stack = super().build_middleware_stack()
        self._clients = ClientOfRequest(
            ApiFirst(stack, self._access) if self._is_api_direct else stack, self._options
        )
        return self._clients

    def direct_api(self, address: str) -> DirectApi | None:
        """The API for a server that has started this application, and serves nothing around it.

        It calls the API without ASGI. None: routes or middleware of an embedding application may want the
        requests. `address` is PUBLIC or ADMIN.
        """
        if self._clients is None or self.middleware_stack is not self._clients or not self._is_api_direct:
            return None
        return DirectApi(self._api, self._access, self._clients, address)


def create_app(
    settings: Settings | None = None,
    *,
    engine: Engine | None = None,
    routes: Sequence[BaseRoute] = (),
    rpc_methods: Mapping[str, RpcMethod] | None = None,
    has_page: bool = False,
    worker_metrics: WorkerMetrics | None = None,
) -> TocsinApp:
    """Build the application. Its node is `app.state.node`, which the lifespan starts and stops.

    Its hooks are `app.hooks`, and `app.hooks.events` is the decorator of handlers of lifecycle events. Both
    are used before the lifespan starts.

    `settings` are the safe defaults unless given, and `engine` is the one that the settings name. `routes`
    are the embedding application's own and come first. `rpc_methods` are the methods that clients and the
    HTTP API may call by name. `has_page` serves the demo page at `/`. With `worker_metrics`, `/metrics` shows
    all workers of the port.
    """
    settings = settings or Settings()
    hooks, metrics = Hooks(), Metrics()
    dispatcher = HookDispatcher(hooks, settings, metrics, rpc_methods or ())
    node = Node(
        settings,
        engine or create_engine(settings.engine, digest_of_histories(settings), settings.events),
        rpc_methods=rpc_methods,
        authorizer=dispatcher,
        metrics=metrics,
    )
    node.services.add_context(dispatcher.running)
    proxies = Proxies(settings, metrics)
    proxies.add_to(hooks)
    node.services.add_context(proxies.running)
    node.services.add_warnings(lambda: proxies.warnings)
    add_sources(node)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[State]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(node.running())
            if worker_metrics is not None:
                await stack.enter_async_context(worker_metrics.sharing(node.metrics.page))
            yield {"node": node}

    deliveries = deliveries_of(node)
    node.services.add_work(deliveries)
    hooks.events = EventHandlers(deliveries.add, settings.events.types)
    keys = ApiKeys(settings)
    api = Api(node, keys, deliveries)
    guarded_api = AccessControl(api, node, keys.accepts)
    own_routes: list[BaseRoute] = [
        websocket_route(node),
        events_route(node),
        *stream_routes(node),
        *((unidirectional_websocket_route(node),) if settings.client.unidirectional else ()),
        *((emulation_route(node),) if settings.client.http_stream or settings.client.sse else ()),
        *health_routes(node, worker_metrics),
    ]
    for route in own_routes:
        guarded = cast("Route", route)  # or a WebSocketRoute, which has an app too
        guarded.app = AccessControl(guarded.app, node, keys.accepts)
    app = TocsinApp(
        settings.server,
        api,
        guarded_api,
        hooks,
        has_other_routes=bool(routes),
        routes=[*routes, *own_routes, *api_routes(guarded_api), *(page_routes() if has_page else ())],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.node = node
    return app
