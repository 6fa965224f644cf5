"""The JSON codec of the client protocol: commands to text, text to replies (protocol §1 to §5; pure).

One WebSocket message carries JSON objects joined by a newline. Payloads reach the caller as decoded Python
values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from tocsin.errors import BadProtocol

from . import json_fallback
from .messages import Command, Reply, Request

PONG = "{}"
FRAME_BYTES = 32_768  # half of the 65,536 bytes that servers accept in one message
PART_CHARACTERS = 65_536
_UINT32 = 2**32
T = TypeVar("T")

_decoder = msgspec.json.Decoder(Reply)
_encoder = msgspec.json.Encoder()


def build_command(number: int, method: str, request: Request) -> Command:
    """Build one command. Ids grow for the life of a client and never restart (protocol §2)."""
    return {"id": number % _UINT32 or 1, method: request}


def encode_frames(commands: Sequence[Command]) -> list[str]:
    """Join commands, in order, into as few messages as the size of a frame allows."""
    frames: list[list[str]] = []
    size = FRAME_BYTES
    for text in map(encode_json, commands):
        size += len(text) + 1
        if size > FRAME_BYTES:
            frames.append([])
            size = len(text)
        frames[-1].append(text)
    return ["\n".join(frame) for frame in frames]


def split_frame(frame: str | bytes) -> Iterator[str]:
    """Split one message at line ends into parts of about ``PART_CHARACTERS``. An object is never split.

    A message of millions of small objects needs little memory, if each part is handled by itself.
    """
    text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
    at = 0
    while len(text) - at > PART_CHARACTERS and (end := text.find("\n", at + PART_CHARACTERS)) >= 0:
        yield text[at:end]
        at = end + 1
    yield text[at:] if at else text


def decode_replies(text: str) -> Iterator[Reply]:
    """Split and decode a message or a part of one, object by object.

    Raises ``BadProtocol`` when it does not follow this protocol.
    """
    return (decode_json(_decoder, line) for line in text.split("\n") if line)


def encode_payload(value: Any) -> msgspec.Raw:
    """Encode a caller's payload at once, so that a value that JSON cannot hold raises where it is given."""
    return msgspec.Raw(encode_json(value).encode())


def encode_json(value: Any) -> str:
    """Encode any value that msgspec can (dataclasses, datetimes …), and strings with lone surrogates."""
    try:
        return _encoder.encode(value).decode()
    except (UnicodeEncodeError, RecursionError):
        pass
    try:
        return json_fallback.encode(value)
    except TypeError:
        return json_fallback.encode(msgspec.to_builtins(value))


def decode_json(decoder: msgspec.json.Decoder[T], text: str) -> T:
    """Decode one JSON text: by msgspec, else by the fallback. Raises ``BadProtocol`` if both fail."""
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        pass
    try:
        return msgspec.convert(json_fallback.decode(text), decoder.type)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadProtocol(f"the server sent a message that is not of this protocol: {error}") from error
