"""`/events`: channels as Server-Sent Events, for an EventSource without an SDK (docs/sse.md)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.session import Session
from tocsin_server.node.connection import Connections
from tocsin_server.protocol.messages import Command
from tocsin_server.transports.origins import (
    ORIGIN_REFUSED,
    cors_headers,
    origin_is_allowed,
    origin_is_named,
    preflight_response,
)
from tocsin_server.transports.refusals import log_refusal
from tocsin_server.transports.sse.connection import SseConnection
from tocsin_server.transports.sse.dry_run import expected_answers, server_side_channels
from tocsin_server.transports.sse.events import refused_event
from tocsin_server.transports.sse.last_event_id import is_final
from tocsin_server.transports.sse.refusal import StreamRefused
from tocsin_server.transports.sse.request import EventRequest, newest_last_event_id, read_query, read_request
from tocsin_server.transports.streams.response import EVENT_STREAM, StreamResponse

EVENTS_PATH = "/events"
COOKIE = "tocsin_token"
BEARER = "bearer "

RETRY_MILLISECONDS = (2500, 7500)
"""When an EventSource may try again after 503, spread."""


def events_route(connections: Connections) -> BaseRoute:
    """The route of a node's event streams."""
    return Route(EVENTS_PATH, EventStreams(connections), methods=["GET", "HEAD", "OPTIONS"])


class EventStreams:
    """The endpoint, as an ASGI application."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. The request itself is not kept while a stream lasts."""
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        origins = self._connections.limits.allowed_origins
        try:
            response = await self._answer(request, origins)
        except StreamRefused as refusal:
            address = request.client.host if request.client is not None else ""
            transport = SseConnection.transport_name
            log_refusal(self._connections, transport, refusal.status, refusal.message, address)
            if refusal.is_temporary and _is_event_source(request):
                response = _ended_stream(refusal)
            else:
                response = _refusal_response(refusal)
        response.headers.update(cors_headers(request, origins))
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    async def _answer(self, request: Request, origins: Sequence[str]) -> Response:
        if not origin_is_allowed(request, origins):
            raise StreamRefused(HTTPStatus.FORBIDDEN, errors.PERMISSION_DENIED.code, ORIGIN_REFUSED)
        if request.method == "OPTIONS":
            return preflight_response(request, "GET", "Authorization, Last-Event-ID")
        query = read_query(request.scope["query_string"].decode("latin-1"))
        last_event_id = newest_last_event_id(request.headers.items(), query)
        if is_final(last_event_id):
            return Response(status_code=HTTPStatus.NO_CONTENT)
        if reason := self._connections.unready_reason:
            raise StreamRefused(HTTPStatus.SERVICE_UNAVAILABLE, errors.INTERNAL_ERROR.code, reason)
        header_token = _header_token(request, may_use_cookie=origin_is_named(request, origins))
        wanted = read_request(query, last_event_id, header_token, self._connections.limits.channels)
        # Before the dry runs: they find neither channels nor a refusal for a token whose key is not known
        await self._connections.wait_for_keys([wanted.token, *wanted.channel_tokens.values()])
        is_dry_run = request.method == "HEAD"
        connection = SseConnection(self._connections, self._new_session(is_executed=not is_dry_run), wanted)
        if is_dry_run:
            self._dry_run(connection, self._commands(wanted))
        else:
            self._admit(connection, request)
            await self._open(connection, self._commands(wanted), request.receive)
        return StreamResponse(self._connections, connection)

    def _admit(self, connection: SseConnection, request: Request) -> None:
        """Count the connection in. Raises StreamRefused if there are too many."""
        if refused := connection.admit(request):
            raise StreamRefused.for_limit(refused)

    async def _open(self, connection: SseConnection, commands: Sequence[Command], receive: Receive) -> None:
        """Attach the connection and subscribe its channels. Raises StreamRefused, once the session ended.

        If the client disconnects meanwhile, the session has ended, and the stream ends at once.
        """
        self._connections.attach(connection)
        self._connections.handle_event(connection, events.Received(commands))
        watching = asyncio.create_task(_lose_at_disconnect(connection, receive))
        try:
            await connection.opened()
        except BaseException:
            connection.lose()
            raise
        finally:
            watching.cancel()

    def _dry_run(self, connection: SseConnection, commands: Sequence[Command]) -> None:
        """Raise StreamRefused if GET would be refused, as far as that does not depend on the engine."""
        for effect in expected_answers(connection.session, commands, self._connections.now()):
            if isinstance(effect, events.Send):
                connection.send([effect.message])
            else:
                connection.close(effect.why)
        if connection.refusal is not None:
            raise connection.refusal

    def _commands(self, wanted: EventRequest) -> list[Command]:
        """The session's commands. Those with a token need the channels that it subscribes by itself."""
        commands = wanted.commands()
        if wanted.token and wanted.is_recovering:
            session = self._new_session(is_executed=False)
            server_side = server_side_channels(session, commands[0], self._connections.now())
            commands = wanted.commands(server_side)
        return commands

    def _new_session(self, *, is_executed: bool) -> Session:
        return self._connections.new_session(wants_pong=False, announces_pings=False, is_executed=is_executed)


async def _lose_at_disconnect(connection: SseConnection, receive: Receive) -> None:
    """End a session whose stream opens, when its client disconnects: a hook may take long to answer."""
    while (await receive())["type"] != "http.disconnect":
        pass  # the request's body, which is ignored
    connection.drop()
    connection.lose()


def _header_token(request: Request, *, may_use_cookie: bool) -> str:
    """The token of the Authorization header, or else of the cookie. Raises StreamRefused."""
    tokens = {
        value[len(BEARER) :].strip()
        for value in request.headers.getlist("authorization")
        if value[: len(BEARER)].lower() == BEARER
    }
    if not tokens and may_use_cookie:
        tokens = {value for name, value in _cookies(request) if name == COOKIE}
    if len(tokens) > 1:
        # Cookies of several paths or domains have no order (RFC 6265 §4.2.2), and each names another user
        raise StreamRefused.for_query("The request has several tokens that differ, in headers or cookies.")
    return next(iter(tokens), "")


def _cookies(request: Request) -> Iterator[tuple[str, str]]:
    for header in request.headers.getlist("cookie"):
        for pair in header.split(";"):
            name, _, value = pair.partition("=")
            yield name.strip(), value.strip().strip('"')


def _is_event_source(request: Request) -> bool:
    """Whether an EventSource makes this request, which gives up for good on every status but 200.

    Other clients understand a status. They ask for another type, or set the `Cache-Control` of libraries.
    """
    headers = request.headers
    accepts_stream = EVENT_STREAM in headers.get("accept", "")
    return request.method == "GET" and accepts_stream and headers.get("cache-control") != "no-store"


def _ended_stream(refusal: StreamRefused) -> Response:
    """A stream that ends at once, after which an EventSource fires `error` and comes back."""
    retry_milliseconds = random.randint(*RETRY_MILLISECONDS)  # noqa: S311 - spreads load
    body = refused_event(refusal.code, refusal.message, retry_milliseconds)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(body, headers=headers, media_type=EVENT_STREAM)


def _refusal_response(refusal: StreamRefused) -> Response:
    headers = {"Cache-Control": "no-store"}
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    elif refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(refusal.retry_after)
    return JSONResponse({"code": refusal.code, "message": refusal.message}, refusal.status, headers)
