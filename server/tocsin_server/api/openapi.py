"""The OpenAPI 3.1 document of the API, generated from the types of its requests and results.

What the types do not say is added to their schemas: which members may be null, that a publication needs a
payload, and how long the name of a channel may be.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from copy import deepcopy
from functools import lru_cache
from typing import Any

import msgspec

from tocsin_server.api import auth
from tocsin_server.api.calls import Method
from tocsin_server.api.methods import METHODS
from tocsin_server.api.signatures import SCHEME as SIGNATURE_SCHEME
from tocsin_server.api.types import (
    CALLS_LIMIT,
    CHANNEL_PATTERN,
    ApiError,
    LegacyCommand,
    LegacyReply,
    PublicationFields,
)
from tocsin_server.version import __version__

Json = dict[str, Any]

DESCRIPTION = """\
With this API a back end publishes into channels, reads their state, and controls users' connections.

The response of a call is a 200 with either `result` or `error`. Error codes: 100 internal server error (the
caller may retry), 102 unknown channel, 103 permission denied (by the scope of the key), 104 not found, 107
bad request, 108 not available, 111 too many requests, 112 unrecoverable position. In transport error mode the
response has a status instead: 500 for 100, 404 for 102 and 104, 403 for 103, 400 for 107 and 108, 429 for
111, 416 for 112.
"""
LEGACY_ENDPOINT = f"""\
The legacy endpoint for one or more commands.

Commands follow each other with or without whitespace between them. Each has its reply on a line of its own,
in the order of the commands. More than {CALLS_LIMIT} commands are refused together, with error 107.
"""
SECURITY: Json = {
    "header": {"type": "apiKey", "in": "header", "name": auth.HEADER},
    "authorization": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": f"`{auth.SCHEME} KEY`",
    },
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": f"`{SIGNATURE_SCHEME} key=…, time=…, nonce=…, digest=…, signature=…`",
    },
}
KEY_IN_ADDRESS: Json = {"query": {"type": "apiKey", "in": "query", "name": auth.PARAMETER}}
ERROR_MODE: Json = {
    "name": "X-Centrifugo-Error-Mode",
    "in": "header",
    "description": "With `transport`, errors are returned as HTTP status. Every other value has no effect.",
    "schema": {"type": "string", "examples": ["transport"]},
}
COMPRESSION = "It may be compressed: with a `Content-Encoding` of `gzip` or `deflate`."
"""Not a parameter: a tool that made up its value would send a body that is not compressed."""
NEEDS_PAYLOAD: list[Json] = [
    {"required": ["data"]},
    {"required": ["b64data"], "properties": {"b64data": {"type": "string", "minLength": 1}}},
]
"""The payload of a publication, in one of two members."""


@lru_cache(maxsize=8)
def api_document(
    root_path: str = "", channel_length_limit: int = 255, allows_key_in_address: bool = False
) -> Json:
    """The document for an application that is mounted at `root_path`. It is cached: do not change it."""
    security = SECURITY | (KEY_IN_ADDRESS if allows_key_in_address else {})
    requests = {LegacyCommand} | {method.request for method in METHODS.values()}
    results = {ApiError, LegacyReply} | {method.result for method in METHODS.values()}
    schemas = _schemas(results) | _request_schemas(requests, channel_length_limit)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tocsin server API", "version": __version__, "description": DESCRIPTION},
        "servers": [{"url": root_path or "/"}],
        "security": [{scheme: []} for scheme in security],
        "paths": {
            **{f"/api/{name}": {"post": _operation(name, method)} for name, method in METHODS.items()},
            "/api": {"post": _legacy_endpoint()},
        },
        "components": {
            "schemas": schemas,
            "responses": _responses(),
            "parameters": {"ErrorMode": ERROR_MODE},
            "securitySchemes": security,
        },
    }


def _schemas(types: Iterable[type]) -> Json:
    _, schemas = msgspec.json.schema_components(_by_name(types), ref_template="#/components/schemas/{name}")
    return schemas


def _request_schemas(types: Iterable[type], channel_length_limit: int) -> Json:
    schemas = _schemas(types)
    _refuse_one_by_one(schemas)
    for kind in types:
        if issubclass(kind, PublicationFields):
            schemas[kind.__name__]["anyOf"] = NEEDS_PAYLOAD
    for schema in schemas.values():
        _limit_channel_names(schema, channel_length_limit)
        _allow_null(schema)
    return schemas


def _refuse_one_by_one(schemas: Json) -> None:
    """Let items that are refused by themselves be valid, since the request around them is accepted.

    The commands of a batch get schemas of their own, without what only a command's own reply says.
    """
    _drop_pattern(schemas["BroadcastRequest"]["properties"]["channels"]["items"])
    for member in schemas["BatchCommand"]["properties"].values():
        for place in member["anyOf"]:
            if "$ref" in place:
                name = place["$ref"].rpartition("/")[2]
                schemas[f"{name}InBatch"] = command = deepcopy(schemas[name])
                place["$ref"] += "InBatch"
                for of_command in command["properties"].values():
                    _drop_pattern(of_command)


def _drop_pattern(schema: Json) -> None:
    if schema.get("pattern") == CHANNEL_PATTERN:
        del schema["pattern"]


def _limit_channel_names(schema: Json, limit: int) -> None:
    for member in schema.get("properties", {}).values():
        for place in (member, member.get("items", {})):
            if place.get("pattern") == CHANNEL_PATTERN:
                place["maxLength"] = limit


def _allow_null(schema: Json) -> None:
    """Let every optional member of a request be null, which counts as absent."""
    for name, member in schema.get("properties", {}).items():
        if name in schema.get("required", ()):
            continue
        for place in (member, *member.get("anyOf", ())):
            others = place.get("additionalProperties")
            if isinstance(others, dict) and isinstance(others.get("type"), str):
                others["type"] = [others["type"], "null"]
        if isinstance(member.get("type"), str):
            member["type"] = [member["type"], "null"]
        elif "$ref" in member:
            schema["properties"][name] = {"anyOf": [member, {"type": "null"}]}


def _by_name(types: Iterable[type]) -> list[type]:
    return sorted(types, key=lambda kind: kind.__name__)


def _operation(name: str, method: Method) -> Json:
    return {
        "operationId": name,
        **_prose(method.call.__doc__ or ""),
        "parameters": [_parameter("ErrorMode")],
        "requestBody": _body(method.request),
        "responses": {
            "200": _response(method),
            "400": _common("BadRequest"),
            "401": _common("Unauthorized"),
            "403": _common("Refused"),
            "404": _common("Refused"),
            "413": _common("TooLarge"),
            "415": _common("UnsupportedCoding"),
            "416": _common("Refused"),
            "429": _common("TooManyRequests"),
            "500": _common("Refused"),
        },
    }


def _legacy_endpoint() -> Json:
    return {
        "operationId": "commands",
        **_prose(LEGACY_ENDPOINT),
        "deprecated": True,
        "requestBody": _body(LegacyCommand),
        "responses": {
            "200": {"description": "A reply for each command.", "content": _content(_ref(LegacyReply))},
            "400": _common("BadRequest"),
            "401": _common("Unauthorized"),
            "413": _common("TooLarge"),
            "415": _common("UnsupportedCoding"),
            "429": _common("TooManyRequests"),
        },
    }


def _response(method: Method) -> Json:
    refused = _object(error=_ref(ApiError))
    done = _object(result=_ref(method.result)) if method.is_wrapped else _ref(method.result)
    return {"description": "The result, or the error.", "content": _content({"oneOf": [done, refused]})}


def _responses() -> Json:
    """The responses that every operation has besides its result."""
    text = {"text/plain": {"schema": {"type": "string"}}}
    refused = _content(_ref(ApiError))
    return {
        "BadRequest": {
            "description": "The body is not a JSON object. In transport error mode: errors 107 and 108.",
            "content": {**text, **refused},
        },
        "Unauthorized": {
            "description": "The key or signature is missing or wrong. The body is empty, or has a sentence.",
            "content": text,
        },
        "TooManyRequests": {
            "description": "In transport error mode: error 111. `Retry-After` has the seconds to wait.",
            "content": refused,
        },
        "TooLarge": {"description": "The body is larger than `[api] body_limit_bytes`.", "content": text},
        "UnsupportedCoding": {"description": "The Content-Encoding is another one.", "content": text},
        "Refused": {"description": "In transport error mode: the error.", "content": refused},
    }


def _prose(docstring: str) -> Json:
    summary, _, description = inspect.cleandoc(docstring).partition("\n\n")
    prose = {"summary": " ".join(summary.split())}
    return {**prose, "description": description} if description else prose


def _body(kind: type) -> Json:
    return {"required": True, "description": COMPRESSION, "content": _content(_ref(kind))}


def _content(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(kind: type) -> Json:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


def _common(name: str) -> Json:
    return {"$ref": f"#/components/responses/{name}"}
