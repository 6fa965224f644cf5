"""The HTTP API, an ASGI application: `POST /api/<method>`, the legacy `POST /api`, and the OpenAPI document.

    key or signature --> body --> JSON object --> typed request --> rate, scope --> method --> result or error

Until there is a JSON object, an invalid request is answered with an HTTP status and a sentence. After that it
is answered with an error of the protocol: in a 200, or as a status in transport error mode.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tocsin_server import errors
from tocsin_server.api.auth import ApiKeys, Unauthorized
from tocsin_server.api.body import coding_of, decoded, json_object, json_objects, read_body
from tocsin_server.api.body import content as content_of
from tocsin_server.api.callers import Caller, LimitReached
from tocsin_server.api.calls import Context, Method, Pending, api_error, begin, decode, too_many_calls
from tocsin_server.api.http import ApiRequest, ApiResponse, error_response, json_response, status_error
from tocsin_server.api.methods import COMMANDS, METHODS
from tocsin_server.api.openapi import api_document
from tocsin_server.api.signatures import Signature
from tocsin_server.api.types import CALLS_LIMIT, LegacyCommand, LegacyReply
from tocsin_server.eager_future import EagerFuture
from tocsin_server.errors import Refusal, Refused
from tocsin_server.hooks.assembly import deliveries_of
from tocsin_server.hooks.dead_letters import DeadLetters
from tocsin_server.hooks.deliveries import Deliveries
from tocsin_server.loop_turns import LoopTurns
from tocsin_server.node.node import Node
from tocsin_server.protocol.canonical import is_set

PATH_CHARACTERS = 100
"""How much of a path is logged."""

ERROR_MODE_HEADER = b"x-centrifugo-error-mode"
DOCUMENT_PATH = "/api/openapi.json"

SHORT_BYTES = 4096
"""A call with no larger body is short, unless it makes several, which take turns then."""

NO_PARAMS = Raw(b"{}")

BATCH = "batch"
"""The method whose scope and rate are those of its commands."""

if TYPE_CHECKING:
    from tocsin_server.api.calls import Later

    Answer = Callable[[ApiRequest, bytes, Caller], ApiResponse | Later[ApiResponse]]

_encode = msgspec.json.Encoder().encode
_legacy_decoder = msgspec.json.Decoder(LegacyCommand)


class Call(Struct, frozen=True):
    """A request of a known caller, before its body is read."""

    request: ApiRequest
    caller: Caller
    signature: Signature | None
    coding: str
    """How the body is compressed; empty if it is not."""
    answer: Answer


class Api:
    """The API under `/api` and every path below it.

    It is an ASGI application. A server may also call `open` with a request, and then `respond` with its body.

    The mutable state is what the callers have used of their rates, and the turns of all calls.
    """

    def __init__(self, node: Node, keys: ApiKeys, deliveries: Deliveries | None = None) -> None:
        self._node = node
        self._keys = keys
        self._body_limit = node.settings.api.body_limit_bytes
        self._turns = LoopTurns()
        self._dead_letters = DeadLetters(deliveries or deliveries_of(node))
        self._answers: dict[str, Answer] = {
            "/api": self._legacy_answer,
            **{f"/api/{name}": self._answer_of(name, method) for name, method in METHODS.items()},
        }

    @property
    def paths(self) -> Collection[str]:
        """The paths of all calls."""
        return self._answers.keys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request by ASGI."""
        request = ApiRequest.of_scope(scope)
        response = self._document(request) if request.path == DOCUMENT_PATH else None
        if response is None:
            call = self.open(request)
            response = call if isinstance(call, ApiResponse) else await self._respond(call, receive)
        await response.send(send)

    def open(self, request: ApiRequest) -> Call | ApiResponse:
        """Find out who makes which call. A response refuses it."""
        caller: Caller | None = None
        answer = self._answers.get(request.path)
        if answer is None:
            return error_response(status_error(HTTPStatus.NOT_FOUND))
        if request.method != "POST":
            return error_response(status_error(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "POST"}))
        try:
            caller, signature = self._keys.caller_of(request, request.path)
            return Call(request, caller, signature, coding_of(request), answer)
        except (LimitReached, HTTPException) as error:
            return self._refused(request, error, caller)

    def respond(self, call: Call, body: bytes) -> ApiResponse | Later[ApiResponse]:
        """The response to a call with its whole body, or what to await if something must be waited for."""
        caller = call.caller
        turns = self._turns
        may_run = turns.take_short() if len(body) <= SHORT_BYTES else turns.take()
        if not may_run or not caller.enter_now():
            return self._respond(call, body)
        is_pending = False
        try:
            outcome = call.answer(call.request, self._content(call, body), caller)
            is_pending = type(outcome) is not ApiResponse
        except (LimitReached, HTTPException) as error:
            return self._refused(call.request, error, caller)
        finally:
            if not is_pending:
                caller.leave()
        if type(outcome) is ApiResponse:
            return outcome
        if isinstance(outcome, EagerFuture):
            return outcome.always(Caller.leave, caller)
        return self._respond_later(call, outcome)

    async def _respond_later(self, call: Call, begun: Later[ApiResponse]) -> ApiResponse:
        """The response to a call that has begun, and whose caller has entered."""
        try:
            return await begun
        except (LimitReached, HTTPException) as error:
            return self._refused(call.request, error, call.caller)
        finally:
            call.caller.leave()

    async def _respond(self, call: Call, body: bytes | Receive) -> ApiResponse:
        """The response to a call whose caller has not entered. Then its body is read, unless it is there."""
        try:
            await call.caller.enter()
        except LimitReached as error:
            return self._refused(call.request, error, call.caller)
        begun = self._answer(call, body)
        return await self._respond_later(call, begun)

    async def _answer(self, call: Call, body: bytes | Receive) -> ApiResponse:
        if not isinstance(body, bytes):
            body = await read_body(body, self._body_limit)
        content = self._content(call, body)
        await self._turns.wait()
        outcome = call.answer(call.request, content, call.caller)
        return outcome if isinstance(outcome, ApiResponse) else await outcome

    def _content(self, call: Call, body: bytes) -> bytes:
        return content_of(body, self._body_limit, call.coding, call.signature)

    def _answer_of(self, name: str, method: Method) -> Answer:
        """What answers the requests of a method."""
        decoder, result, is_wrapped = method.decoder, method.result, method.is_wrapped

        def answer(request: ApiRequest, body: bytes, caller: Caller) -> ApiResponse | Later[ApiResponse]:
            params = decoded(decoder, body)
            if params is not None:
                outcome = self._make(caller, name, method, params)
            else:
                outcome = self._begin(caller, name, method, json_object(body))
            if type(outcome) is result or not isinstance(outcome, Pending):
                return response(request, outcome)
            if isinstance(outcome, EagerFuture):
                return outcome.then(response, None, request)
            return answer_later(request, outcome)

        async def answer_later(request: ApiRequest, outcome: Later[Any]) -> ApiResponse:
            return response(request, await outcome)

        def response(request: ApiRequest, outcome: Any) -> ApiResponse:
            if isinstance(outcome, Refusal):
                return self._refusal(request, outcome)
            return json_response({"result": outcome} if is_wrapped else outcome)

        return answer

    async def _legacy_answer(self, _request: ApiRequest, body: bytes, caller: Caller) -> ApiResponse:
        """Answer one or more commands."""
        commands = json_objects(body, CALLS_LIMIT + 1)
        if len(commands) > CALLS_LIMIT:
            return json_response(LegacyReply(error=api_error(too_many_calls("commands"))))
        replies = [await self._legacy_reply(caller, command) for command in commands]
        return ApiResponse(b"\n".join(map(_encode, replies)))

    def _begin(self, caller: Caller, name: str, method: Method, params: Raw) -> Any:
        """The result of one call, its refusal, or what to await for either. Raises LimitReached."""
        if self._turns.take():
            try:
                return self._make(caller, name, method, method.decoder.decode(params))
            except (msgspec.ValidationError, RecursionError):
                pass  # it may be in another than the canonical form
        return self._call(caller, name, method, params)

    async def _call(self, caller: Caller, name: str, method: Method, params: Raw) -> Any:
        try:
            request = await method.decode_in_turns(params, self._turns)
        except Refused as error:
            return error.refusal
        outcome = self._make(caller, name, method, request)
        return await outcome if isinstance(outcome, Pending) else outcome

    def _make(self, caller: Caller, name: str, method: Method, request: Struct) -> Any:
        context = Context(self._node, caller, self._turns, self._dead_letters)
        try:
            calls = 1 if method.weigh is None else method.weigh(request)
            caller.take(calls, time.monotonic())
            if name != BATCH:
                context.permit(name, request)
        except Refused as error:
            return error.refusal
        self._node.metrics.api_calls.counts[caller.name,] += calls
        return begin(method.call, context, request)

    async def _legacy_reply(self, caller: Caller, text: Raw) -> LegacyReply:
        await self._turns.wait()
        try:
            command = decode(_legacy_decoder, text)
        except Refused as error:
            return LegacyReply(error=api_error(error.refusal))
        method = COMMANDS.get(command.method)
        params = command.params if command.params and is_set(command.params) else NO_PARAMS
        try:
            outcome = self._begin(caller, command.method, method, params) if method else errors.NOT_FOUND
            if isinstance(outcome, Pending):
                outcome = await outcome
        except LimitReached as error:
            self._log_limit(error, caller)
            outcome = error.refusal
        if isinstance(outcome, Refusal):
            return LegacyReply(command.id, api_error(outcome))
        return LegacyReply(command.id, result=Raw(_encode(outcome)))

    def _refusal(self, request: ApiRequest, refusal: Refusal) -> ApiResponse:
        if "transport" in (self._node.settings.api.error_mode, request.header(ERROR_MODE_HEADER)):
            return json_response(api_error(refusal), refusal.http_status)
        return json_response({"error": api_error(refusal)})

    def _too_many(self, request: ApiRequest, error: LimitReached) -> ApiResponse:
        seconds = max(1, math.ceil(error.retry_after_seconds))
        response = self._refusal(request, error.refusal)
        return msgspec.structs.replace(response, headers=((b"retry-after", b"%d" % seconds),))

    def _refused(
        self, request: ApiRequest, error: LimitReached | HTTPException, caller: Caller | None
    ) -> ApiResponse:
        """The response to a request that is refused, which is logged."""
        if isinstance(error, LimitReached):
            self._log_limit(error, caller)
            return self._too_many(request, error)
        self._log_refusal(request, error, caller)
        return error_response(error)

    def _log_limit(self, error: LimitReached, caller: Caller | None) -> None:
        self._node.limit_reached(error.limit, key=caller.name if caller else "")

    def _log_refusal(self, request: ApiRequest, refused: HTTPException, caller: Caller | None) -> None:
        """Log why a request is answered with an HTTP status and a sentence. Never with its query."""
        reason = refused.reason if isinstance(refused, Unauthorized) else refused.detail
        self._node.sampled_log.write(
            "api_request_refused",
            path=request.full_path[:PATH_CHARACTERS],
            status=refused.status_code,
            error=reason,
            key=caller.name if caller else "",
            address=request.address,
        )

    def _document(self, request: ApiRequest) -> ApiResponse:
        if request.method not in ("GET", "HEAD"):
            return error_response(status_error(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"}))
        api, length_limit = self._node.settings.api, self._node.settings.client.channel_length_limit
        return json_response(api_document(request.root_path, length_limit, api.allow_key_in_address))


def api_routes(app: ASGIApp) -> list[BaseRoute]:
    """Every route under `/api`, including its 404 and 405, so that no other route answers there."""
    return [Route("/api", app), Route("/api/{path:path}", app)]


class ApiFirst:
    """ASGI middleware: requests to the API go to it directly, and others to the rest of an application."""

    def __init__(self, app: ASGIApp, api: ASGIApp) -> None:
        self._app = app
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        is_of_api = scope["type"] == "http" and (path := get_route_path(scope)).startswith("/api")
        if is_of_api and path[4:5] in ("", "/"):
            await self._api(scope, receive, send)
        else:
            await self._app(scope, receive, send)
