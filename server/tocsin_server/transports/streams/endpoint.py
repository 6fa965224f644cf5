"""The endpoints of streams: one request, whose response has the messages of a connection (protocol §16).

    /connection/http_stream        emulated           lines      POST; or protobuf
    /connection/sse                emulated           events     GET, POST
    /connection/uni_http_stream    unidirectional     lines      POST
    /connection/uni_sse            unidirectional     events     GET, POST

The commands of an emulated connection, or the connect request of a unidirectional one, are the body of a
POST, and `cf_connect` in the query of a GET. What the session refuses is a message of the stream, since SDKs
need its code. A request that does not get as far has the HTTP status of its refusal.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tocsin_server.node.connection import Connections
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.protobuf.codec import PROTOBUF
from tocsin_server.protocol.unidirectional import UNIDIRECTIONAL_JSON, decode_connect_request
from tocsin_server.transports.http_request import (
    RequestRefused,
    address_of,
    media_type,
    read_body,
    too_large,
)
from tocsin_server.transports.origins import (
    ORIGIN_REFUSED,
    cors_headers,
    origin_is_allowed,
    preflight_response,
)
from tocsin_server.transports.refusals import log_refusal
from tocsin_server.transports.streams.connection import StreamConnection
from tocsin_server.transports.streams.framing import StreamFraming, lines, sse_events
from tocsin_server.transports.streams.response import EVENT_STREAM, StreamResponse

LINES = "application/x-ndjson"
PROTOBUF_TYPE = "application/octet-stream"
CONNECT_PARAMETER = "cf_connect"

RETRY_MILLISECONDS = (500, 5000)
"""A client of `uni_sse` reconnects after a time drawn from this range, however its stream ends."""

NO_COMMANDS = f"The request needs commands: in its body, or of a GET in the parameter {CONNECT_PARAMETER}."
NO_CONNECT_REQUEST = "The connect request is not a JSON object of the protocol."
NOT_THIS_FORMAT = "This transport does not have this format. With protobuf there is http_stream."


@dataclass(frozen=True)
class StreamKind:
    """One endpoint."""

    name: str
    """The last part of its path, and with `transport_name` what it is called in logs and metrics."""
    transport_name: str
    methods: tuple[str, ...]
    media_type: str
    framing: StreamFraming
    is_unidirectional: bool = False
    binary_framing: StreamFraming | None = None
    """The framing of clients that speak protobuf, if it has them."""


HTTP_STREAM = StreamKind(
    "http_stream",
    "http_stream",
    ("POST",),
    LINES,
    StreamFraming(JSON, lines),
    binary_framing=StreamFraming(PROTOBUF, PROTOBUF.join),
)
SSE = StreamKind("sse", "emulated_sse", ("GET", "POST"), EVENT_STREAM, StreamFraming(JSON, sse_events))
UNI_HTTP_STREAM = StreamKind(
    "uni_http_stream",
    "uni_http_stream",
    ("POST",),
    LINES,
    StreamFraming(UNIDIRECTIONAL_JSON, lines),
    is_unidirectional=True,
)
UNI_SSE = StreamKind(
    "uni_sse",
    "uni_sse",
    ("GET", "POST"),
    EVENT_STREAM,
    StreamFraming(UNIDIRECTIONAL_JSON, sse_events),
    is_unidirectional=True,
)


def stream_routes(connections: Connections) -> Sequence[BaseRoute]:
    """The routes that the configuration turns on."""
    client = connections.settings.client
    kinds = [
        *((HTTP_STREAM,) if client.http_stream else ()),
        *((SSE,) if client.sse else ()),
        *((UNI_HTTP_STREAM, UNI_SSE) if client.unidirectional else ()),
    ]
    return [
        Route(
            f"/connection/{kind.name}", StreamEndpoint(connections, kind), methods=[*kind.methods, "OPTIONS"]
        )
        for kind in kinds
    ]


class StreamEndpoint:
    """One endpoint, as an ASGI application."""

    def __init__(self, connections: Connections, kind: StreamKind) -> None:
        self._connections = connections
        self._kind = kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. The request itself is not kept while a stream lasts."""
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            response = await self._answer(request)
        except RequestRefused as refused:
            transport = self._kind.transport_name
            log_refusal(self._connections, transport, refused.status, refused.reason, address_of(request))
            response = refused.response(request)
        response.headers.update(cors_headers(request, self._connections.limits.allowed_origins))
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    async def _answer(self, request: Request) -> Response:
        if not origin_is_allowed(request, self._connections.limits.allowed_origins):
            raise RequestRefused(HTTPStatus.FORBIDDEN, ORIGIN_REFUSED)
        if request.method == "OPTIONS":
            return preflight_response(request, ", ".join(self._kind.methods), "Content-Type")
        if request.method == "HEAD":
            raise RequestRefused(HTTPStatus.METHOD_NOT_ALLOWED, "A stream has no head alone.")
        query = parse_qs(request.scope["query_string"].decode("latin-1"))
        framing = self._choose_framing(request, query)
        commands = await self._read_commands(request, query)
        if reason := self._connections.unready_reason:
            raise RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, reason)
        return self._open(request, framing, commands)

    def _choose_framing(self, request: Request, query: Mapping[str, Sequence[str]]) -> StreamFraming:
        """The format of the body is that of the response. The query may name it, as on a WebSocket."""
        formats = {*query.get("format", ()), *query.get("cf_protocol", ())}
        if media_type(request) == PROTOBUF_TYPE:
            formats.add(PROTOBUF.name)
        framing = self._kind.binary_framing if formats == {PROTOBUF.name} else self._kind.framing
        if framing is None or not formats <= {framing.codec.name}:
            raise RequestRefused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, NOT_THIS_FORMAT)
        return framing

    def _open(self, request: Request, framing: StreamFraming, commands: bytes) -> Response:
        kind = self._kind
        connection = StreamConnection(
            self._connections, kind.transport_name, framing, is_unidirectional=kind.is_unidirectional
        )
        if no := connection.admit(request):
            raise RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, no.reason, no.retry_after)
        if kind is UNI_SSE:
            retry_milliseconds = random.randint(*RETRY_MILLISECONDS)  # noqa: S311 - spreads load
            connection.send_queue.put(b"retry: %d\n\n" % retry_milliseconds)
        connection.open(commands)
        body_type = PROTOBUF_TYPE if framing is kind.binary_framing else kind.media_type
        return StreamResponse(self._connections, connection, body_type)

    async def _read_commands(self, request: Request, query: Mapping[str, Sequence[str]]) -> bytes:
        """Return the commands, or the connect request. Raises RequestRefused."""
        limit = self._connections.limits.message_bytes
        if request.method == "POST":
            commands = await read_body(request, limit, too_large(limit))
        else:
            commands = query.get(CONNECT_PARAMETER, [""])[-1].encode()
        if len(commands) > limit:
            raise too_large(limit)
        if self._kind.is_unidirectional:
            commands = commands or b"{}"
            if decode_connect_request(commands) is None:
                raise RequestRefused(HTTPStatus.BAD_REQUEST, NO_CONNECT_REQUEST)
        elif not commands:
            raise RequestRefused(HTTPStatus.BAD_REQUEST, NO_COMMANDS)
        return commands
