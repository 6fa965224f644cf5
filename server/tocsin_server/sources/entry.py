"""An entry of a source, and the publication that it asks for. This module is pure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from tocsin_server.engine.broker import NewPublication
from tocsin_server.protocol.json_text import compact
from tocsin_server.protocol.payloads import Payload, payload_of

KEPT_SECONDS = 7 * 86_400
"""How long the engine remembers that an entry was published whose removal it was not told of.

For so long, an entry that was published and not removed is not published twice: a node that died between the
two, or a database that was away.
"""

_OFFSET_LIMIT = 2**53 - 1


class InvalidEntry(ValueError):
    """An entry can never be published as it is. The message says why, and shows nothing of the payload."""


class SourceEntry(Struct, frozen=True, gc=False):
    """A row of the outbox, or an entry of the publish stream. Members that it does not have are None."""

    id: str
    """Its name in logs: the id of the row or of the entry."""
    channel: str
    idempotency_key: str
    """That of the back end, or one that no other entry has."""
    data: bytes | None = None
    """A JSON value."""
    binary_data: bytes | None = None
    """Any bytes, in place of `data`."""
    tags: bytes | None = None
    """A JSON object of strings."""
    options: bytes | None = None
    """A JSON object, with the members of `PublishOptions`."""
    problem: str = ""
    """Why the source itself knows that the entry cannot be published."""


class PublishOptions(Struct, forbid_unknown_fields=True):
    """What the HTTP API calls by the same names (docs/http-api.md)."""

    skip_history: bool = False
    delta: bool = False
    version: Annotated[int, Meta(ge=0, le=_OFFSET_LIMIT)] = 0
    version_epoch: str = ""


_decode_tags = msgspec.json.Decoder(dict[str, str] | None).decode
_decode_options = msgspec.json.Decoder(PublishOptions | None).decode


def too_large(size: int, limit_bytes: int) -> str:
    """The problem of an entry that has more bytes than the body of a request may have."""
    return f"it has {size} bytes, and at most api.body_limit_bytes ({limit_bytes}) can be published"


def new_publication(entry: SourceEntry) -> NewPublication:
    """The publication of an entry. Raises InvalidEntry."""
    if entry.problem:
        raise InvalidEntry(entry.problem)
    try:
        tags = None if entry.tags is None else _decode_tags(entry.tags)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEntry(f"tags is no JSON object of strings: {error}") from None
    try:
        options = (entry.options and _decode_options(entry.options)) or PublishOptions()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidEntry(f"options is not valid: {error}") from None
    return NewPublication(
        _payload(entry),
        tags=tags,
        skip_history=options.skip_history,
        idempotency_key=entry.idempotency_key,
        idempotency_seconds=KEPT_SECONDS,
        version=options.version,
        version_epoch=options.version_epoch,
        delta=options.delta,
    )


def _payload(entry: SourceEntry) -> Payload:
    if (entry.data is None) == (entry.binary_data is None):
        both = "both data and binary_data" if entry.data is not None else "neither data nor binary_data"
        raise InvalidEntry(f"it has {both}, and needs one of them")
    if entry.data is not None:
        try:
            return compact(entry.data)
        except ValueError as error:
            raise InvalidEntry(f"data is no JSON: {_without_bytes(error)}") from None
    if not entry.binary_data:
        raise InvalidEntry("binary_data is empty")
    return payload_of(entry.binary_data)


def _without_bytes(error: ValueError) -> str:
    """What is wrong with a JSON value. An error of UTF-8 would show a byte of it."""
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
