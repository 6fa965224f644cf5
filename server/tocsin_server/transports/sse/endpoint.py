"""`/events`: channels as Server-Sent Events, for an EventSource without any SDK (docs/sse.md)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.session import Session
from tocsin_server.node.node import Node
from tocsin_server.protocol.messages import Command
from tocsin_server.transports.cors import cors_headers, origin_is_allowed, preflight
from tocsin_server.transports.sse.connection import SseConnection
from tocsin_server.transports.sse.dry_run import rehearse, server_side_channels
from tocsin_server.transports.sse.last_event_id import FAREWELL
from tocsin_server.transports.sse.refusal import FORBIDDEN, UNAUTHENTICATED, UNAVAILABLE, StreamRefused
from tocsin_server.transports.sse.request import EventRequest, read_request
from tocsin_server.transports.sse.response import EventStreamResponse

PATH = "/events"
COOKIE = "tocsin_token"
BEARER = "bearer "

RETRY_AFTER_SECONDS = "5"
"""What a client is told that came while the node cannot publish or hear: about what mending takes."""


def events_route(node: Node) -> BaseRoute:
    """The route of a node's event streams."""
    return Route(PATH, EventStreams(node), methods=["GET", "HEAD", "OPTIONS"])


class EventStreams:
    """The endpoint, as an ASGI application."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Nothing of it but what the stream needs is kept while that lasts."""
        response = await self._respond(Request(scope))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        origins = self._node.settings.server.allowed_origins
        try:
            response = await self._answer(request, origins)
        except StreamRefused as why:
            response = _refusal(why)
        response.headers.update(cors_headers(request, origins))
        return response

    async def _answer(self, request: Request, origins: Sequence[str]) -> Response:
        if not origin_is_allowed(request, origins):
            sentence = "This origin may not connect (allowed_origins)."
            raise StreamRefused(FORBIDDEN, errors.PERMISSION_DENIED.code, sentence)
        if request.method == "OPTIONS":
            return preflight("GET", "Authorization, Last-Event-ID")
        query = parse_qs(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
        # The header is newer: an address is made once, and a browser that comes back says how far it got
        last_event_id = request.headers.get("last-event-id", query.get("last_event_id", [""])[-1])
        if last_event_id.startswith(FAREWELL):
            return Response(status_code=204)
        if self._node.unready_reason:
            raise StreamRefused(UNAVAILABLE, errors.INTERNAL_ERROR.code, self._node.unready_reason)
        channel_limit = self._node.settings.client.channel_limit
        wanted = read_request(query, last_event_id, _token_beside_query(request), channel_limit)
        peer = SseConnection(self._node, self._new_session(), wanted)
        if request.method == "HEAD":
            self._rehearse(peer, self._commands(wanted))
        else:
            await self._open(peer, self._commands(wanted))
        return EventStreamResponse(self._node, peer)

    async def _open(self, peer: SseConnection, commands: Sequence[Command]) -> None:
        """Enter the channels. From here on the peer has to be told when its client is lost."""
        self._node.attach(peer)
        self._node.handle_event(peer, events.Received(commands))
        try:
            await peer.opened()
        except BaseException:
            self._node.handle_event(peer, events.ConnectionLost())
            raise

    def _rehearse(self, peer: SseConnection, commands: Sequence[Command]) -> None:
        """Find out what GET would be answered, as far as that can be known without asking the engine."""
        for effect in rehearse(peer.session, commands, self._node.now()):
            if isinstance(effect, events.Send):
                peer.send([effect.message])
            else:
                peer.close(effect.why)
        if peer.refusal is not None:
            raise peer.refusal

    def _commands(self, wanted: EventRequest) -> list[Command]:
        """What to tell the session; with a token, what that subscribes by itself has to be known first."""
        commands = wanted.commands()
        if wanted.token and wanted.is_resuming:
            server_side = server_side_channels(self._new_session(), commands[0], self._node.now())
            commands = wanted.commands(server_side)
        return commands

    def _new_session(self) -> Session:
        return self._node.new_session(wants_pong=False, announces_pings=False)


def _token_beside_query(request: Request) -> str:
    """The token of a client that can set headers, or that of a browser's cookie."""
    authorization = request.headers.get("authorization", "")
    if authorization[: len(BEARER)].lower() == BEARER:
        return authorization[len(BEARER) :].strip()
    return request.cookies.get(COOKIE, "")


def _refusal(why: StreamRefused) -> Response:
    headers = {"Cache-Control": "no-store"}
    if why.status == UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    elif why.status == UNAVAILABLE:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    return JSONResponse({"code": why.code, "message": why.message}, why.status, headers)
