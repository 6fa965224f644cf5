"""`POST /emulation`: commands of an emulated connection, on any node.

    body --> a session of this node --> its commands run: 204
         --> a session of the node that the body names --> its commands run there: 204

Commands run in the order in which a node receives the requests. A client that has several requests under way
has no order among them; SDKs send those one after the other that need one. Replies are messages of the
connection. An SDK closes its connection and reconnects after 404, and after each status from 500 on.
"""

from __future__ import annotations

from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from tocsin_server.core.session_guesses import LIMIT, SessionGuesses
from tocsin_server.errors import EngineError, Unanswered
from tocsin_server.node.connection import Connections
from tocsin_server.node.emulated_sessions import session_digest
from tocsin_server.transports.emulation.envelope import Envelope, body_limit, read_envelope
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

EMULATION_PATH = "/emulation"
TRANSPORT = "emulation"
"""The transport's name in the refusal log. The connection itself has another one."""

PROTOBUF_TYPE = "application/octet-stream"
"""The type of a protobuf body. Every other body is JSON, however it is named."""

FORWARDED_BYTES = 67_108_864
"""How many bytes of commands may be on their way to other nodes at once."""

NO_SESSION = "No node has this session. Connect again."
NODE_SILENT = "The node that has this session does not answer."
NOT_FORWARDED = "The commands could not be forwarded to the node that has this session."
TOO_MANY_FORWARDED = "Too many commands are on their way to other nodes."
TOO_MANY_GUESSES = "Your address asks for too many sessions that do not exist."


def emulation_route(connections: Connections) -> BaseRoute:
    """The route of the endpoint."""
    return Route(EMULATION_PATH, EmulationEndpoint(connections), methods=["POST", "OPTIONS"])


class EmulationEndpoint:
    """The endpoint, as an ASGI application.

    The mutable state is how many bytes are on their way to other nodes, and what addresses have used.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._guesses = SessionGuesses(connections.settings.limits)
        self._forwarded_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        response = await self._respond(request)
        response.headers.update(cors_headers(request, self._connections.limits.allowed_origins))
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except RequestRefused as refused:
            log_refusal(self._connections, TRANSPORT, refused.status, refused.reason, address_of(request))
            return refused.response(request)

    async def _answer(self, request: Request) -> Response:
        if not origin_is_allowed(request, self._connections.limits.allowed_origins):
            raise RequestRefused(HTTPStatus.FORBIDDEN, ORIGIN_REFUSED)
        if request.method == "OPTIONS":
            return preflight_response(request, "POST", "Content-Type")
        limit = self._connections.limits.message_bytes
        body = await read_body(request, body_limit(limit), too_large(limit))
        envelope = read_envelope(body, limit, is_protobuf=media_type(request) == PROTOBUF_TYPE)
        digest = session_digest(envelope.session)
        is_received = self._connections.emulated_sessions.receive(digest, envelope.commands)
        if not is_received and not await self._ask_other_node(request, envelope, digest):
            raise RequestRefused(HTTPStatus.NOT_FOUND, NO_SESSION)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _ask_other_node(self, request: Request, envelope: Envelope, digest: bytes) -> bool:
        """Forward commands to the node that the envelope names. False: it has no such session."""
        key = self._connections.admission.key_of(address_of(request))
        if not self._guesses.take(key, self._connections.now().monotonic):
            self._connections.limit_reached(LIMIT, address=key)
            raise RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY_GUESSES)
        if envelope.node == self._connections.uid or not envelope.names_node:
            return False
        is_received = await self._forward(envelope.node, digest, envelope.commands)
        if is_received:
            self._guesses.give_back(key)
        return is_received

    async def _forward(self, node: str, digest: bytes, commands: bytes) -> bool:
        if self._forwarded_bytes + len(commands) > FORWARDED_BYTES:
            raise RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, TOO_MANY_FORWARDED)
        self._forwarded_bytes += len(commands)
        try:
            return await self._connections.emulated_sessions.forward(node, digest, commands)
        except Unanswered:
            raise RequestRefused(HTTPStatus.GATEWAY_TIMEOUT, NODE_SILENT) from None
        except EngineError as error:
            self._connections.log_refusal("commands_not_forwarded", error=str(error))
            raise RequestRefused(HTTPStatus.SERVICE_UNAVAILABLE, NOT_FORWARDED) from None
        finally:
            self._forwarded_bytes -= len(commands)
