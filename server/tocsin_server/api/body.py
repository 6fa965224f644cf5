"""The body of a request to the HTTP API: bounded in bytes, and made of JSON objects."""

from __future__ import annotations

import json
import re

from msgspec import Raw
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from tocsin_server.protocol.json import compact

_WHITESPACE = " \t\r\n"
_GAP = re.compile(f"[{_WHITESPACE}]*")
_scan = json.JSONDecoder().raw_decode


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """Read the whole body. Raises HTTPException 413 at the first chunk beyond the limit."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit_bytes:
                raise HTTPException(
                    413,
                    f"The request's body is larger than {limit_bytes} bytes ([api] body_limit_bytes).",
                )
    except ClientDisconnect:
        raise HTTPException(400, "The request's body ended early.") from None
    return bytes(body)


def json_object(body: bytes) -> Raw:
    """The body as one JSON object, whose members are not decoded. Raises HTTPException 400 otherwise."""
    try:
        text = compact(body)
    except ValueError as error:
        raise HTTPException(400, f"The request's body is not JSON: {error}.") from None
    if not bytes(text).startswith(b"{"):
        raise HTTPException(400, "The request's body is not a JSON object.")
    return text


def json_objects(body: bytes, limit: int) -> list[Raw]:
    """The body as one or more JSON objects, with or without whitespace between them.

    Stops after `limit` objects. Raises HTTPException 400 if there is anything else.

    The standard library's parser finds the end of each object. It accepts more than JSON, so `json_object`
    checks each object again.
    """
    objects: list[Raw] = []
    try:
        text = body.decode().strip(_WHITESPACE)
        start = 0
        while (start < len(text) and len(objects) < limit) or not objects:
            _, end = _scan(text, start)
            objects.append(json_object(text[start:end].encode()))
            start = _skip_gap(text, end)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"The request's body is not JSON: {error}.") from None
    return objects


def _skip_gap(text: str, start: int) -> int:
    gap = _GAP.match(text, start)
    return gap.end() if gap else start
