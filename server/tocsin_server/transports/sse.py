"""`/events`: channels as Server-Sent Events, for an EventSource without any SDK (docs/sse.md)."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.eventrequest import EventRequest, read_request
from tocsin_server.core.lastid import FAREWELL
from tocsin_server.core.protocol import Command
from tocsin_server.core.rehearsal import rehearse, server_side_channels
from tocsin_server.core.session import Session
from tocsin_server.core.streamrefused import FORBIDDEN, UNAUTHENTICATED, UNAVAILABLE, StreamRefused
from tocsin_server.node import Node
from tocsin_server.transports.cors import cors_headers, origin_is_allowed, preflight
from tocsin_server.transports.eventpeer import EventPeer
from tocsin_server.transports.eventresponse import EventStreamResponse

PATH = "/events"
COOKIE = "tocsin_token"
BEARER = "bearer "

RETRY_AFTER_SECONDS = "5"
"""What a client is told that came while the node can neither publish nor hear: about what mending takes."""


def events_route(node: Node) -> BaseRoute:
    """The route of a node's event streams."""
    return Route(PATH, EventStreams(node), methods=["GET", "HEAD", "OPTIONS"])


class EventStreams:
    """The endpoint, as an ASGI application."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope)
        headers = cors_headers(request, self._node.settings.server.allowed_origins)
        try:
            self._check_origin(request)
            if request.method == "OPTIONS":
                response = preflight("GET", "Authorization, Last-Event-ID")
            elif request.headers.get("last-event-id", "").startswith(FAREWELL):
                response = Response(status_code=204)
            elif request.method == "HEAD":
                response = self._answer_head(request)
            else:
                await self._stream(request, headers, receive, send)
                return
        except StreamRefused as why:
            response = _refusal(why)
        response.headers.update(headers)
        await response(scope, receive, send)

    def _check_origin(self, request: Request) -> None:
        if not origin_is_allowed(request, self._node.settings.server.allowed_origins):
            sentence = "This origin may not connect (allowed_origins)."
            raise StreamRefused(FORBIDDEN, errors.PERMISSION_DENIED.code, sentence)

    def _answer_head(self, request: Request) -> Response:
        """As GET would be answered, as far as that can be known without asking the engine."""
        wanted = self._read(request)
        peer = EventPeer(self._node, self._new_session(), wanted)
        for effect in rehearse(peer.session, self._commands(wanted), self._node.now()):
            if isinstance(effect, events.Send):
                peer.send([effect.message])
            else:
                peer.close(effect.why)
        if peer.opened.done() and (why := peer.opened.result()) is not None:
            raise why
        return EventStreamResponse(self._node, peer)

    async def _stream(
        self, request: Request, headers: Mapping[str, str], receive: Receive, send: Send
    ) -> None:
        wanted = self._read(request)
        peer = EventPeer(self._node, self._new_session(), wanted)
        self._node.attach(peer)
        self._node.tell(peer, events.Commanded(self._commands(wanted)))
        try:
            why = await peer.opened
            if why is not None:
                raise why
            response = EventStreamResponse(self._node, peer, headers)
            await response(request.scope, receive, send)
        finally:
            self._node.tell(peer, events.Lost())

    def _read(self, request: Request) -> EventRequest:
        if self._node.trouble:
            raise StreamRefused(UNAVAILABLE, errors.INTERNAL_ERROR.code, self._node.trouble)
        return read_request(
            request.url.query,
            request.headers.get("last-event-id"),
            _token_beside_query(request),
            self._node.settings.client.channel_limit,
        )

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
