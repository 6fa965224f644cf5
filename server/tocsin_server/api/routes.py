"""The routes of the HTTP API: `POST /api/<method>`, the legacy `POST /api`, and the OpenAPI document.

    key --> body, up to its limit --> JSON object --> typed request --> method --> result or error

Until there is a JSON object, an invalid request is answered with an HTTP status and a sentence. After that it
is answered with an error of the protocol: in a 200, or as a status in transport error mode.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Raw
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from tocsin_server import errors
from tocsin_server.api.auth import ApiKeys
from tocsin_server.api.body import json_object, json_objects, read_body
from tocsin_server.api.calls import Method, api_error, attempt, decode, in_turn, too_many_calls
from tocsin_server.api.methods import COMMANDS, METHODS
from tocsin_server.api.openapi import api_document
from tocsin_server.api.types import CALLS_LIMIT, LegacyCommand, LegacyReply
from tocsin_server.errors import Refusal, Refused
from tocsin_server.node.node import Node
from tocsin_server.protocol.canonical import is_set

PATH_CHARACTERS = 100
"""How much of a path is logged."""

ERROR_MODE_HEADER = "X-Centrifugo-Error-Mode"

NO_PARAMS = Raw(b"{}")

Endpoint = Callable[[Request], Awaitable[Response]]

_encode = msgspec.json.Encoder().encode
_legacy_decoder = msgspec.json.Decoder(LegacyCommand)


def api_routes(node: Node) -> list[BaseRoute]:
    """Every route under `/api`, including its 404 and 405, so that no other route answers there."""
    keys = ApiKeys(node.settings.api)
    router = Router(
        [
            Route("/api", _legacy_endpoint(node, keys), methods=["POST"]),
            *(
                Route(f"/api/{name}", _endpoint(node, keys, method), methods=["POST"])
                for name, method in METHODS.items()
            ),
            Route("/api/openapi.json", _document(node.settings.client.channel_length_limit)),
        ],
        redirect_slashes=False,
    )
    return [Route("/api", router), Route("/api/{path:path}", router)]


def _endpoint(node: Node, keys: ApiKeys, method: Method) -> Endpoint:
    @_logged(node, keys)
    async def respond(request: Request) -> Response:
        text = json_object(await _accepted_body(request, keys, node))
        outcome = await attempt(_call(node, method, text))
        if isinstance(outcome, Refusal):
            return _refusal(outcome, is_status=_wants_status(request, node))
        return _json({"result": outcome} if method.is_wrapped else outcome)

    return respond


def _legacy_endpoint(node: Node, keys: ApiKeys) -> Endpoint:
    @_logged(node, keys)
    async def respond(request: Request) -> Response:
        commands = json_objects(await _accepted_body(request, keys, node), CALLS_LIMIT + 1)
        if len(commands) > CALLS_LIMIT:
            return _json(LegacyReply(error=api_error(too_many_calls("commands"))))
        replies = await in_turn(_legacy_reply(node, command) for command in commands)
        return Response(b"\n".join(map(_encode, replies)), media_type="application/json")

    return respond


def _logged(node: Node, keys: ApiKeys) -> Callable[[Endpoint], Endpoint]:
    """Log why a request is answered with an HTTP status and a sentence."""

    def wrap(endpoint: Endpoint) -> Endpoint:
        async def respond(request: Request) -> Response:
            try:
                return await endpoint(request)
            except HTTPException as refused:
                reason = refused.detail or keys.refusal_reason(request)
                node.log_refusal(
                    "api_request_refused",
                    path=request.url.path[:PATH_CHARACTERS],
                    status=refused.status_code,
                    error=reason,
                    address=request.client.host if request.client is not None else "",
                )
                raise

        return respond

    return wrap


def _document(channel_length_limit: int) -> Endpoint:
    async def respond(request: Request) -> Response:
        return _json(api_document(request.scope.get("root_path", ""), channel_length_limit))

    return respond


async def _accepted_body(request: Request, keys: ApiKeys, node: Node) -> bytes:
    """The body of a request with a valid key. Without one the body is not read. Raises HTTPException."""
    if not keys.accepts(request):
        raise HTTPException(401, "")
    return await read_body(request, node.settings.api.body_limit_bytes)


async def _call(node: Node, method: Method, params: Raw) -> Any:
    return await method.call(node, method.decode(params))


async def _legacy_reply(node: Node, text: Raw) -> LegacyReply:
    try:
        command = decode(_legacy_decoder, text)
    except Refused as error:
        return LegacyReply(error=api_error(error.refusal))
    method = COMMANDS.get(command.method)
    outcome = (
        await attempt(
            _call(node, method, command.params if command.params and is_set(command.params) else NO_PARAMS)
        )
        if method
        else errors.NOT_FOUND
    )
    if isinstance(outcome, Refusal):
        return LegacyReply(command.id, api_error(outcome))
    return LegacyReply(command.id, result=Raw(_encode(outcome)))


def _wants_status(request: Request, node: Node) -> bool:
    return "transport" in (node.settings.api.error_mode, request.headers.get(ERROR_MODE_HEADER))


def _refusal(refusal: Refusal, *, is_status: bool) -> Response:
    if is_status:
        return _json(api_error(refusal), refusal.http_status)
    return _json({"error": api_error(refusal)})


def _json(content: object, status_code: int = 200) -> Response:
    return Response(_encode(content), status_code, media_type="application/json")
