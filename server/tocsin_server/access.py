"""Which requests reach the routes of a node, checked before a route is called.

    client's address --> served here? --> may this page call? --> metrics: private, or a key? --> route

Responses get the headers that keep browsers from storing them and from guessing their type. The raw WebSocket
transport reads its own requests and checks them itself.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from starlette._utils import get_route_path
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tocsin_server.api.application import Api
from tocsin_server.api.http import ApiRequest, ApiResponse, first_values
from tocsin_server.config.admin_options import AdminPart
from tocsin_server.config.options import ServerOptions
from tocsin_server.node.node import Node
from tocsin_server.transports.client_address import UNIX, TrustedProxies, normalized
from tocsin_server.transports.hosts import HOST_REFUSED, names_another_site
from tocsin_server.transports.origins import SAME_HOST, cors_headers, is_allowed, preflight_response

if TYPE_CHECKING:
    from tocsin_server.api.calls import Later

PUBLIC = "public"
"""The address of [server]."""

ADMIN = "admin"
"""The separate address of [admin], which serves no clients."""

NOT_SERVED = "Not Found"
PAGE_REFUSED = "Pages of this origin may not call the server (admin.allowed_origins)."
METRICS_REFUSED = (
    "Metrics are for callers on private networks, for those with an API key, and on the address of [admin]."
)

_FORWARDING_HEADERS = frozenset({b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"})
"""Headers by which a proxy can be told that is not trusted."""

_PAGE_HEADERS = frozenset({b"origin", b"sec-fetch-site"})
"""Headers that browsers send for pages, and back ends do not."""

_PRIVATE = [
    ipaddress.ip_network(name) for name in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
]

_API_METHODS = "POST, GET"
_API_HEADERS = "Authorization, Content-Type, X-API-Key"

_PEER = "tocsin.peer"


log = structlog.get_logger()


def is_private(peer: str) -> bool:
    """Whether an address is on this machine or in a private network. A peer on a unix socket is a proxy."""
    try:
        address = ipaddress.ip_address(normalized(peer))
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in _PRIVATE)


def part_of(path: str) -> AdminPart | None:
    """Which part of [admin] one of the node's paths belongs to. None: it is for clients."""
    if path == "/api/openapi.json":
        return "docs"
    if path == "/api" or path.startswith("/api/"):
        return "api"
    if path.startswith("/health/"):
        return "health"
    return "metrics" if path == "/metrics" else None


class ClientOfRequest:
    """ASGI middleware: behind trusted proxies, a request has the address, scheme and host of its client.

    The first request through a proxy on a private network that is not trusted leaves a warning in the log.
    """

    def __init__(self, app: ASGIApp, options: ServerOptions) -> None:
        self._app = app
        self._proxies = TrustedProxies(options.trusted_proxies, options.proxy_header)
        self._has_warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Replace the peer by the client."""
        if scope["type"] in ("http", "websocket"):
            peer = scope["client"][0] if scope.get("client") else ""
            is_trusted = self._proxies.trust(peer or UNIX)
            if is_trusted:
                self._set_client(scope, peer)
            else:
                self._warn_of_proxy(peer, [name for name, _ in scope["headers"]])
            scope[_PEER] = is_trusted
        await self._app(scope, receive, send)

    def check(self, peer: str, headers: Iterable[bytes]) -> None:
        """Leave the warning, if it is due, for a request with these headers that comes to no application."""
        if not (self._has_warned or self._proxies.trust(peer or UNIX)):
            self._warn_of_proxy(peer, headers)

    def address_of(self, peer: str, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """The address of the client of a request, as `scope["client"]` has it."""
        if not self._proxies.trust(peer or UNIX):
            return peer
        return self._proxies.client_of(peer, Headers(raw=list(headers)).getlist).address

    def _warn_of_proxy(self, peer: str, headers: Iterable[bytes]) -> None:
        if not (self._has_warned or _FORWARDING_HEADERS.isdisjoint(headers)) and is_private(peer):
            self._has_warned = True
            log.warning("proxy_not_trusted", peer=peer, advice="set server.trusted_proxies")

    def _set_client(self, scope: Scope, peer: str) -> None:
        found = self._proxies.client_of(peer, HTTPConnection(scope).headers.getlist)
        if found.address != peer:
            scope["client"] = (found.address, 0)
        if found.scheme:
            is_websocket = scope["type"] == "websocket"
            scope["scheme"] = found.scheme.replace("http", "ws") if is_websocket else found.scheme
        if found.host:
            others = [header for header in scope["headers"] if header[0] != b"host"]
            scope["headers"] = [*others, (b"host", found.host.encode("ascii"))]


class AccessControl:
    """An ASGI application around that of one of the node's routes."""

    def __init__(self, app: ASGIApp, node: Node, has_key: Callable[[ApiRequest], bool]) -> None:
        server, admin = node.settings.server, node.settings.admin
        self._app = app
        self._node = node
        self._has_key = has_key
        self._is_api_insecure = node.settings.api.insecure
        self._served = {PUBLIC: admin.served_publicly, ADMIN: admin.serve}
        self._origins = admin.allowed_origins
        self._known_origins = (*server.allowed_origins, *admin.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        part = part_of(get_route_path(scope))
        if part == "api":
            address = scope.get("state", {}).get("address", PUBLIC)
            if self.is_plain_call(address, first_values(scope["headers"])):
                await self._app(scope, receive, send)
                return
        if refused := self._refusal(HTTPConnection(scope), part):
            await self._refuse(scope, receive, send, *refused)
        elif part is None:  # its route adds the headers, since a stream has many writes
            await self._app(scope, receive, send)
        else:
            await self._call(HTTPConnection(scope), receive, send)

    async def _call(self, request: HTTPConnection, receive: Receive, send: Send) -> None:
        answer = _Answer(send, self._cors_headers(request))
        app = self._app
        if answer.has_cors and _is_preflight(request):
            app = preflight_response(request, _API_METHODS, _API_HEADERS)
        await app(request.scope, receive, answer.send)

    def is_plain_call(self, address: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a call of the API comes from a back end, and needs no check and no headers for pages."""
        if "api" not in self._served[address] or not _PAGE_HEADERS.isdisjoint(headers):
            return False
        if not self._is_api_insecure:
            return True
        host = headers.get(b"host", b"").decode("latin-1")
        return not names_another_site(host, self._known_origins)

    @property
    def depends_on_host(self) -> bool:
        """Whether calls of the API are refused that name another host, which a trusted proxy may tell."""
        return self._is_api_insecure

    # ----------------------------------------------------------------------------- why a request is refused

    def _refusal(self, request: HTTPConnection, part: AdminPart | None) -> tuple[HTTPStatus, str] | None:
        """The status and reason of a refusal."""
        address = request.scope.get("state", {}).get("address", PUBLIC)
        if address == ADMIN if part is None else part not in self._served[address]:
            return HTTPStatus.NOT_FOUND, NOT_SERVED
        host = request.headers.get("host", "")
        settings = self._node.settings
        is_insecure = settings.client.insecure if part is None else settings.api.insecure
        if is_insecure and names_another_site(host, self._known_origins):
            return HTTPStatus.FORBIDDEN, HOST_REFUSED
        if part is not None and not self._page_may_call(request, host):
            return HTTPStatus.FORBIDDEN, PAGE_REFUSED
        if part == "metrics" and address == PUBLIC and not self._may_read_metrics(request):
            return HTTPStatus.UNAUTHORIZED, METRICS_REFUSED
        return None

    def _page_may_call(self, request: HTTPConnection, host: str) -> bool:
        """Whether a request comes from no page, from an allowed one, or from a link that a user follows.

        Browsers send an Origin with every POST, and `Sec-Fetch-Site` with every request (Fetch Metadata).
        """
        headers = request.headers
        origin = headers.get("origin")
        if origin is not None:
            return is_allowed(origin, host, self._origins)
        if headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return True
        return request.scope.get("method") == "GET" and headers.get("sec-fetch-mode") == "navigate"

    def _may_read_metrics(self, request: HTTPConnection) -> bool:
        """Whether a caller is on a private network, as far as is known, or has an API key."""
        is_known = request.scope.get(_PEER) or not _has_header(request.scope, _FORWARDING_HEADERS)
        client = request.scope.get("client")
        is_near = is_known and client and is_private(client[0])
        return bool(is_near) or self._has_key(ApiRequest.of_scope(request.scope))

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, status: HTTPStatus, sentence: str
    ) -> None:
        client = scope.get("client")
        self._node.sampled_log.write(
            "request_refused",
            path=get_route_path(scope)[:100],
            status=int(status),
            reason=sentence,
            address=client[0] if client else UNIX,
        )
        if scope["type"] == "websocket":
            await receive()  # websocket.connect
            if "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close"})
                return
        await PlainTextResponse(f"{sentence}\n", status)(scope, receive, _Answer(send, {}).send)

    def _cors_headers(self, request: HTTPConnection) -> dict[str, str]:
        """The response headers for pages of other origins that may call the API, without cookies."""
        if all(pattern == SAME_HOST for pattern in self._origins):
            return {}
        headers = cors_headers(request, self._origins)
        headers.pop("Access-Control-Allow-Credentials", None)
        return headers


class DirectApi:
    """The API on one listening address, for a server that passes calls of back ends on without ASGI.

    It does for them what `ClientOfRequest` and `AccessControl` do for other requests.
    """

    def __init__(self, api: Api, access: AccessControl, clients: ClientOfRequest, address: str) -> None:
        self._api = api
        self._access = access
        self._clients = clients
        self._address = address
        self._paths = {path.encode(): path for path in api.paths}

    def open(
        self, url: bytes, headers: Sequence[tuple[bytes, bytes]], fields: Mapping[bytes, bytes], peer: str
    ) -> Callable[[bytes], ApiResponse | Later[ApiResponse]] | ApiResponse | None:
        """What answers a POST request once its whole body is there, or the response that refuses it.

        `fields` are the first values of the headers. None: the request is another than a call of a back end,
        and must take the way of ASGI.
        """
        path, _, query = url.partition(b"?")
        name = self._paths.get(path)
        if name is None or not self._access.is_plain_call(self._address, fields):
            return None
        if not _FORWARDING_HEADERS.isdisjoint(fields):
            if self._access.depends_on_host:
                return None
            self._clients.check(peer, fields)
        find_address = partial(self._clients.address_of, peer, headers)
        call = self._api.open(ApiRequest("POST", name, query, fields, find_address))
        return call if type(call) is ApiResponse else partial(self._api.respond, call)


class _Answer:
    """Adds headers to the response to one request."""

    def __init__(self, send: Send, added: dict[str, str]) -> None:
        self._send = send
        self._added = added
        self.has_cors = "Access-Control-Allow-Origin" in added

    async def send(self, message: Message) -> None:
        """Send one message of the response."""
        if message["type"].endswith("http.response.start"):
            headers = MutableHeaders(scope=message)
            headers.setdefault("Cache-Control", "no-store")
            headers.setdefault("X-Content-Type-Options", "nosniff")
            headers.update(self._added)
        await self._send(message)


def _has_header(scope: Scope, names: Container[bytes]) -> bool:
    return any(name in names for name, _ in scope["headers"])


def _is_preflight(request: HTTPConnection) -> bool:
    is_options = request.scope.get("method") == "OPTIONS"
    return is_options and "access-control-request-method" in request.headers
