"""The HTTP API: `POST /api/<method>`, the single endpoint `POST /api` of old, and the document of both.

    key --> body, up to its limit --> JSON object --> typed request --> method --> result or error

Up to the JSON object a fault is an HTTP status with a sentence; from there on it is an error of the
protocol, in a 200 or, in transport error mode, as a status.
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
from tocsin_server.api.calls import Method, attempt, failure, in_turn, read, too_many_calls
from tocsin_server.api.methods import COMMANDS, METHODS
from tocsin_server.api.openapi import api_document
from tocsin_server.api.types import CALLS_LIMIT, LegacyCommand, LegacyReply
from tocsin_server.errors import Refusal, Refused
from tocsin_server.node.node import Node

ERROR_MODE_HEADER = "X-Centrifugo-Error-Mode"

NO_PARAMS = Raw(b"{}")

Endpoint = Callable[[Request], Awaitable[Response]]

_encode = msgspec.json.Encoder().encode
_legacy_decoder = msgspec.json.Decoder(LegacyCommand)


def api_routes(node: Node) -> list[BaseRoute]:
    """Everything under `/api`, whatever else the application serves: also its 404 and 405."""
    keys = ApiKeys(node.settings.api)
    router = Router(
        [
            Route("/api", _single_endpoint(node, keys), methods=["POST"]),
            *(
                Route(f"/api/{name}", _endpoint(node, keys, method), methods=["POST"])
                for name, method in METHODS.items()
            ),
            Route("/api/openapi.json", _document),
        ],
        redirect_slashes=False,
    )
    return [Route("/api", router), Route("/api/{path:path}", router)]


def _endpoint(node: Node, keys: ApiKeys, method: Method) -> Endpoint:
    async def answer(request: Request) -> Response:
        text = json_object(await _admitted(request, keys, node))
        outcome = await attempt(_call(node, method, text))
        if isinstance(outcome, Refusal):
            return _refused(outcome, is_status=_wants_statuses(request, node))
        return _json({"result": outcome} if method.is_wrapped else outcome)

    return answer


def _single_endpoint(node: Node, keys: ApiKeys) -> Endpoint:
    async def answer(request: Request) -> Response:
        commands = json_objects(await _admitted(request, keys, node), CALLS_LIMIT + 1)
        if len(commands) > CALLS_LIMIT:
            return _json(LegacyReply(error=failure(too_many_calls("commands"))))
        replies = await in_turn(_legacy(node, command) for command in commands)
        return Response(b"\n".join(map(_encode, replies)), media_type="application/json")

    return answer


async def _document(request: Request) -> Response:
    return _json(api_document(request.scope.get("root_path", "")))


async def _admitted(request: Request, keys: ApiKeys, node: Node) -> bytes:
    """The body of a request that shows a key; without one, none of it is read."""
    if not keys.admit(request):
        raise HTTPException(401, "")
    return await read_body(request, node.settings.api.body_limit_bytes)


async def _call(node: Node, method: Method, params: Raw) -> Any:
    return await method.call(node, method.read(params))


async def _legacy(node: Node, text: Raw) -> LegacyReply:
    try:
        command = read(_legacy_decoder, text)
    except Refused as error:
        return LegacyReply(error=failure(error.refusal))
    method = COMMANDS.get(command.method)
    outcome = await attempt(_call(node, method, command.params or NO_PARAMS)) if method else errors.NOT_FOUND
    if isinstance(outcome, Refusal):
        return LegacyReply(command.id, failure(outcome))
    return LegacyReply(command.id, result=Raw(_encode(outcome)))


def _wants_statuses(request: Request, node: Node) -> bool:
    return "transport" in (node.settings.api.error_mode, request.headers.get(ERROR_MODE_HEADER))


def _refused(refusal: Refusal, *, is_status: bool) -> Response:
    if is_status:
        return _json(failure(refusal), refusal.http_status)
    return _json({"error": failure(refusal)})


def _json(content: object, status_code: int = 200) -> Response:
    return Response(_encode(content), status_code, media_type="application/json")
