"""The body of a request to `/emulation`: which session its commands are for, and the commands themselves.

    {"session": "…", "node": "…", "data": "<JSON commands, in a string>"}

A client that speaks protobuf sends the same as the protocol's message `EmulationRequest`: `node` (1),
`session` (2) and `data` (3), each with a length. The session decodes the commands, by the codec of its
connection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from msgspec import Struct

from tocsin_server.transports.http_request import RequestRefused, too_large

ESCAPED = 2
"""How many bytes of JSON one byte of commands takes at most, as `JSON.stringify` writes a quotation mark."""

OVERHEAD_BYTES = 1024
"""Room for the names, the session id and the uid of the node."""

_NODE, _SESSION, _DATA = 1, 2, 3
"""The numbers of the fields."""

_WITH_LENGTH = 2
"""The wire type of texts and bytes."""

_LONGEST_VARINT_BITS = 35

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

NOT_JSON = 'The request\'s body must be a JSON object with the texts "session", "node" and "data".'
NOT_PROTOBUF = "The request's body is not an EmulationRequest of the protocol."
NO_COMMANDS = 'There are no commands in "data".'


class Envelope(NamedTuple):
    """One request."""

    session: str
    node: str
    commands: bytes

    @property
    def names_node(self) -> bool:
        """Whether `node` is the uid of a node, as far as can be seen."""
        return _UID.fullmatch(self.node) is not None


class _JsonBody(Struct):
    session: str
    data: str
    node: str = ""


_decode_json = msgspec.json.Decoder(_JsonBody).decode


def body_limit(limit_bytes: int) -> int:
    """How many bytes a body may have whose commands may have `limit_bytes`."""
    return ESCAPED * limit_bytes + OVERHEAD_BYTES


def read_envelope(body: bytes, limit_bytes: int, *, is_protobuf: bool = False) -> Envelope:
    """Decode a body, whose commands may have `limit_bytes`. Raises RequestRefused."""
    envelope = _from_protobuf(body) if is_protobuf else _from_json(body)
    if not envelope.commands:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, NO_COMMANDS)
    if len(envelope.commands) > limit_bytes:
        raise too_large(limit_bytes)
    return envelope


def _from_json(body: bytes) -> Envelope:
    try:
        decoded = _decode_json(body)
        return Envelope(decoded.session, decoded.node, decoded.data.encode())
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, NOT_JSON) from None


def _from_protobuf(body: bytes) -> Envelope:
    """Decode the wire format of protobuf. The last of several values of a field counts, as everywhere."""
    try:
        found = dict(_fields(body))
        session, node = (found.get(number, b"").decode() for number in (_SESSION, _NODE))
    except (ValueError, IndexError):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, NOT_PROTOBUF) from None
    return Envelope(session, node, found.get(_DATA, b""))


def _fields(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields with a length, and their values. Raises ValueError or IndexError if there are others."""
    position = 0
    while position < len(body):
        tag, position = _varint(body, position)
        size, start = _varint(body, position)
        position = start + size
        if tag & 7 != _WITH_LENGTH or position > len(body):
            raise ValueError("a field has no length, or ends early")
        yield tag >> 3, body[start:position]


def _varint(body: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and the position after it. Raises ValueError or IndexError."""
    number = shift = 0
    while True:
        byte = body[position]
        number |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return number, position
        if shift > _LONGEST_VARINT_BITS:
            raise ValueError("a number is too long")
