"""Application payloads: the `data` of publications, commands and results. Codecs pass them on unread.

A payload is one of two things:

    Raw       one JSON value on one line, without spaces around it
    Binary    any other bytes: no JSON, or JSON in a form that cannot share a frame with other messages

Protobuf clients and `b64data` of the HTTP API bring any bytes. A protobuf client receives exactly these. A
JSON client receives a Binary that is JSON on one line, and cannot receive any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from tocsin_server.protocol.json_text import compact


class Binary(bytes):
    """A payload that is not JSON on one line.

    An encoder of msgspec treats no subclass as `bytes`. Without a hook for it, it raises TypeError.
    """

    __slots__ = ()


if TYPE_CHECKING:
    Payload = Raw | Binary
else:
    Payload = Raw  # what decoders of JSON make of it


class PayloadNotJson(ValueError):
    """A message cannot be encoded as JSON, because one of its payloads is something else."""


def payload_of(data: bytes) -> Payload:
    """The payload of exactly these bytes, of which there must be some."""
    try:
        text = compact(data)
    except ValueError:
        return Binary(data)
    return text if bytes(text) == data else Binary(data)


def json_of(payload: Payload) -> Raw:
    """A payload as JSON on one line. Raises PayloadNotJson."""
    if not isinstance(payload, Binary):
        return payload
    try:
        return compact(payload)
    except ValueError as error:
        raise PayloadNotJson(str(error)) from None


def is_json(payload: Payload) -> bool:
    """Whether a payload is one JSON value, on one line or not."""
    try:
        json_of(payload)
    except PayloadNotJson:
        return False
    return True
