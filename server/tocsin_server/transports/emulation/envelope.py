"""The body of a request to `/emulation`: which session its commands are for, and the commands themselves.

    {"session": "…", "node": "…", "data": "<commands as the connection's codec writes them, in a string>"}

This module is pure.
"""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec
from msgspec import Struct

ESCAPED = 2
"""How many bytes of JSON one byte of commands takes at most, as `JSON.stringify` writes a quotation mark."""

OVERHEAD_BYTES = 1024
"""Room for the names, the session id and the uid of the node."""

_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

NOT_JSON = 'The request\'s body must be a JSON object with the texts "session", "node" and "data".'
NO_COMMANDS = 'There are no commands in "data".'


class RequestRefused(Exception):
    """The status and the reason of a refusal."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Envelope(Struct):
    """One request."""

    session: str
    data: str
    node: str = ""

    @property
    def names_node(self) -> bool:
        """Whether `node` is the uid of a node, as far as can be seen."""
        return _UID.fullmatch(self.node) is not None


_decode = msgspec.json.Decoder(Envelope).decode


def body_limit(limit_bytes: int) -> int:
    """How many bytes a body may have whose commands may have `limit_bytes`."""
    return ESCAPED * limit_bytes + OVERHEAD_BYTES


def read_envelope(body: bytes, limit_bytes: int) -> tuple[Envelope, bytes]:
    """Decode a body into its envelope and its commands, at most `limit_bytes`. Raises RequestRefused."""
    try:
        envelope = _decode(body)
        commands = envelope.data.encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RequestRefused(HTTPStatus.BAD_REQUEST, NOT_JSON) from None
    if not commands:
        raise RequestRefused(HTTPStatus.BAD_REQUEST, NO_COMMANDS)
    if len(commands) > limit_bytes:
        raise too_large(limit_bytes)
    return envelope, commands


def too_large(limit_bytes: int) -> RequestRefused:
    """The commands have more bytes than a WebSocket message may have."""
    reason = f"The commands have more than {limit_bytes} bytes ([client] message_limit_bytes)."
    return RequestRefused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, reason)
