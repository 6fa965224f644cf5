"""The body of a request to the HTTP API: bounded in bytes, decompressed, and made of JSON objects."""

from __future__ import annotations

import json
import re
import zlib
from typing import TypeVar

import msgspec
from msgspec import Raw
from starlette.exceptions import HTTPException
from starlette.types import Receive

from tocsin_server.api.http import ApiRequest
from tocsin_server.api.signatures import Signature
from tocsin_server.protocol.json_text import compact

T = TypeVar("T")

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""Some editors and libraries begin UTF-8 with it. Parsers may ignore it (RFC 8259 §8.1)."""

_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"  # numbers, which are found in a fifth of the time
_WHITESPACE = " \t\r\n"
_GAP = re.compile(f"[{_WHITESPACE}]*")
_scan = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode  # a number of any length, unread
_WINDOW_BITS = {
    "gzip": zlib.MAX_WBITS | 16,
    "x-gzip": zlib.MAX_WBITS | 16,
    "deflate": zlib.MAX_WBITS,
}
"""How zlib decompresses a content coding (RFC 9110 §8.4.1)."""


def coding_of(request: ApiRequest) -> str:
    """How the body is compressed; empty if it is not.

    Raises HTTPException 415 for a content coding other than gzip and deflate.
    """
    if b"content-encoding" not in request.headers:
        return ""
    coding = request.header(b"content-encoding").strip().lower()
    if coding not in ("", "identity", *_WINDOW_BITS):
        raise HTTPException(
            415,
            'The Content-Encoding of a request must be "gzip", "deflate" or absent.',
            {"Accept-Encoding": "gzip, deflate"},
        )
    return coding if coding in _WINDOW_BITS else ""


def content(body: bytes, limit_bytes: int, coding: str = "", signature: Signature | None = None) -> bytes:
    """The body, decompressed. Raises HTTPException 413 if it is larger than the limit.

    The limit applies to the bytes that arrived and to those that they decompress to. Raises HTTPException 401
    for a body that is not the signed one.
    """
    if len(body) > limit_bytes:
        raise _too_large(limit_bytes)
    if signature is not None and not signature.covers(body):
        raise HTTPException(401, "The body is not the one that was signed.")
    return _decompressed(body, coding, limit_bytes) if coding else body


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """Read the whole body as it arrives. Raises HTTPException 413 at the first chunk beyond the limit."""
    parts: list[bytes] = []
    left = limit_bytes
    is_complete = False
    while not is_complete:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "The request's body ended early.")
        parts.append(message.get("body", b""))
        left -= len(parts[-1])
        if left < 0:
            raise _too_large(limit_bytes)
        is_complete = not message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _decompressed(body: bytes, coding: str, limit_bytes: int) -> bytes:
    """The content of a compressed body. Some callers send "deflate" without the header of zlib."""
    is_bare = coding == "deflate" and int.from_bytes(body[:2]) % 31 != 0  # RFC 1950 §2.2
    stream = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else _WINDOW_BITS[coding])
    try:
        content = stream.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise HTTPException(400, f"The request's body is not {coding}: {error}.") from None
    if len(content) > limit_bytes:
        raise _too_large(limit_bytes)
    if not stream.eof or stream.unused_data:
        raise HTTPException(400, f"The request's body is not {coding}: its end is missing or wrong.")
    return content


def _too_large(limit_bytes: int) -> HTTPException:
    return HTTPException(
        413, f"The request's body is larger than {limit_bytes} bytes ([api] body_limit_bytes)."
    )


def _text(body: bytes) -> bytes:
    """The body without a byte order mark. Raises HTTPException 400 if it is not UTF-8."""
    if body.startswith(b'{"'):  # in no other encoding does a text begin so
        return body
    if (encoding := json.detect_encoding(body)) not in ("utf-8", "utf-8-sig"):
        raise HTTPException(400, f"The request's body is not UTF-8, but {encoding.upper()}.")
    return body.removeprefix(_BYTE_ORDER_MARK)


def json_object(body: bytes) -> Raw:
    """The body as one JSON object, whose members are not decoded. Raises HTTPException 400 otherwise."""
    try:
        text = compact(_text(body))
    except ValueError as error:
        raise HTTPException(400, f"The request's body is not JSON: {error}.") from None
    if not bytes(text).startswith(b"{"):
        raise HTTPException(400, "The request's body is not a JSON object.")
    return text


def decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T | None:
    """The value of a JSON object on one line, in canonical form; None if the body may have another form.

    Then `json_object` says what it is. A decoder does not look at the encoding of what it keeps undecoded.
    """
    if not body.startswith(b'{"') or _LINE_FEED in body or _CARRIAGE_RETURN in body:
        return None
    try:
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def json_objects(body: bytes, limit: int) -> list[Raw]:
    """The body as one or more JSON objects, with or without whitespace between them.

    Stops after `limit` objects. Raises HTTPException 400 if there is anything else.

    The standard library's parser finds the end of each object. It accepts more than JSON, so `json_object`
    checks each object again.
    """
    objects: list[Raw] = []
    try:
        text = _text(body).decode().strip(_WHITESPACE)
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
