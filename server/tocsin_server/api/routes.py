"""The routes of the HTTP API: `POST /api/<method>`, the legacy `POST /api`, and the OpenAPI document.

    key or signature --> body --> JSON object --> typed request --> rate, scope --> method --> result or error

Until there is a JSON object, an invalid request is answered with an HTTP status and a sentence. After that it
is answered with an error of the protocol: in a 200, or as a status in transport error mode.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Raw
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from tocsin_server import errors
from tocsin_server.api.auth import ApiKeys, Unauthorized
from tocsin_server.api.body import json_object, json_objects, read_body
from tocsin_server.api.callers import Caller, LimitReached
from tocsin_server.api.calls import Context, Method, api_error, attempt, decode, too_many_calls
from tocsin_server.api.methods import COMMANDS, METHODS, weight
from tocsin_server.api.openapi import api_document
from tocsin_server.api.types import CALLS_LIMIT, LegacyCommand, LegacyReply
from tocsin_server.errors import Refusal, Refused
from tocsin_server.loop_turns import LoopTurns
from tocsin_server.node.node import Node
from tocsin_server.protocol.canonical import is_set

PATH_CHARACTERS = 100
"""How much of a path is logged."""

ERROR_MODE_HEADER = "X-Centrifugo-Error-Mode"

NO_PARAMS = Raw(b"{}")

BATCH = "batch"
"""The method whose scope and rate are those of its commands."""

Endpoint = Callable[[Request], Awaitable[Response]]
Answer = Callable[[Request, bytes, Caller], Awaitable[Response]]

_encode = msgspec.json.Encoder().encode
_legacy_decoder = msgspec.json.Decoder(LegacyCommand)


def api_routes(node: Node) -> list[BaseRoute]:
    """Every route under `/api`, including its 404 and 405, so that no other route answers there."""
    api = _Api(node)
    router = Router(
        [
            Route("/api", api.legacy_endpoint(), methods=["POST"]),
            *(
                Route(f"/api/{name}", api.endpoint(name, method), methods=["POST"])
                for name, method in METHODS.items()
            ),
            Route("/api/openapi.json", _document(node)),
        ],
        redirect_slashes=False,
    )
    return [Route("/api", router), Route("/api/{path:path}", router)]


class _Api:
    """What the endpoints of a node share: the keys, and the turns of all calls."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._keys = ApiKeys(node.settings)
        self._turns = LoopTurns()

    def endpoint(self, name: str, method: Method) -> Endpoint:
        """The endpoint of a method."""

        async def answer(request: Request, body: bytes, caller: Caller) -> Response:
            outcome = await self._call(caller, name, method, json_object(body))
            if isinstance(outcome, Refusal):
                return self._refusal(request, outcome)
            return _json({"result": outcome} if method.is_wrapped else outcome)

        return self._accepting(f"/api/{name}", answer)

    def legacy_endpoint(self) -> Endpoint:
        """The endpoint of one or more commands."""

        async def answer(_request: Request, body: bytes, caller: Caller) -> Response:
            commands = json_objects(body, CALLS_LIMIT + 1)
            if len(commands) > CALLS_LIMIT:
                return _json(LegacyReply(error=api_error(too_many_calls("commands"))))
            replies = [await self._legacy_reply(caller, command) for command in commands]
            return Response(b"\n".join(map(_encode, replies)), media_type="application/json")

        return self._accepting("/api", answer)

    def _accepting(self, path: str, answer: Answer) -> Endpoint:
        """Answer requests with a valid key or signature. Without one the body is not read."""

        async def respond(request: Request) -> Response:
            caller: Caller | None = None
            try:
                caller, signature = self._keys.caller_of(request, path)
                async with caller.place():
                    body = await read_body(request, self._node.settings.api.body_limit_bytes, signature)
                    await self._turns.wait()
                    return await answer(request, body, caller)
            except LimitReached as error:
                self._log_limit(error, caller)
                return self._too_many(request, error)
            except HTTPException as refused:
                self._log_refusal(request, refused, caller)
                raise

        return respond

    async def _call(self, caller: Caller, name: str, method: Method, params: Raw) -> Any:
        """The result of one call, or its refusal. Raises LimitReached."""
        context = Context(self._node, caller, self._turns)
        try:
            request = await method.decode_in_turns(params, self._turns)
            calls = weight(request)
            caller.take(calls, time.monotonic())
            if name != BATCH:
                context.permit(name, request)
        except Refused as error:
            return error.refusal
        self._node.metrics.api_calls.counts[caller.name,] += calls
        return await attempt(method.call(context, request))

    async def _legacy_reply(self, caller: Caller, text: Raw) -> LegacyReply:
        await self._turns.wait()
        try:
            command = decode(_legacy_decoder, text)
        except Refused as error:
            return LegacyReply(error=api_error(error.refusal))
        method = COMMANDS.get(command.method)
        params = command.params if command.params and is_set(command.params) else NO_PARAMS
        try:
            outcome = await self._call(caller, command.method, method, params) if method else errors.NOT_FOUND
        except LimitReached as error:
            self._log_limit(error, caller)
            outcome = error.refusal
        if isinstance(outcome, Refusal):
            return LegacyReply(command.id, api_error(outcome))
        return LegacyReply(command.id, result=Raw(_encode(outcome)))

    def _refusal(self, request: Request, refusal: Refusal) -> Response:
        asked = request.headers.get(ERROR_MODE_HEADER)
        if "transport" in (self._node.settings.api.error_mode, asked):
            return _json(api_error(refusal), refusal.http_status)
        return _json({"error": api_error(refusal)})

    def _too_many(self, request: Request, error: LimitReached) -> Response:
        response = self._refusal(request, error.refusal)
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
        return response

    def _log_limit(self, error: LimitReached, caller: Caller | None) -> None:
        self._node.limit_reached(error.limit, key=caller.name if caller else "")

    def _log_refusal(self, request: Request, refused: HTTPException, caller: Caller | None) -> None:
        """Log why a request is answered with an HTTP status and a sentence. Never with its query."""
        reason = refused.reason if isinstance(refused, Unauthorized) else refused.detail
        self._node.sampled_log.write(
            "api_request_refused",
            path=request.url.path[:PATH_CHARACTERS],
            status=refused.status_code,
            error=reason,
            key=caller.name if caller else "",
            address=request.client.host if request.client is not None else "",
        )


def _document(node: Node) -> Endpoint:
    api, length_limit = node.settings.api, node.settings.client.channel_length_limit

    async def respond(request: Request) -> Response:
        root_path = request.scope.get("root_path", "")
        return _json(api_document(root_path, length_limit, api.allow_key_in_address))

    return respond


def _json(content: object, status_code: int = 200) -> Response:
    return Response(_encode(content), status_code, media_type="application/json")
