"""The JSON codec: one message carries one or more JSON objects, separated by exactly one newline.

Application payloads are raw JSON. They are checked to be JSON when they enter, and never parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec
from msgspec import Raw

from tocsin_server.protocol.canonical import canonical
from tocsin_server.protocol.messages import MALFORMED, Command, Malformed, Push, ServerMessage

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Command).decode
_check = msgspec.json.Decoder(Raw).decode


class JsonCodec:
    """The codec of `centrifuge-json`, and of Server-Sent Events."""

    def decode_commands(self, data: bytes) -> Iterator[Command | Malformed]:
        """Yield the commands of one message.

        One trailing newline is tolerated. An empty message, an empty line and invalid UTF-8 are malformed.
        """
        start, end = 0, len(data) - data.endswith(b"\n")
        while (line_end := data.find(b"\n", start, end)) >= 0:  # thousands of lines may never be reached
            command = _decode_command(data[start:line_end])
            yield command
            if command is MALFORMED:
                return
            start = line_end + 1
        yield _decode_command(data[start:end])

    def encode(self, message: ServerMessage) -> bytes:
        """Encode one message as one line, without the newline."""
        return _encode(message)

    def encode_push(self, push: Push) -> bytes:
        """Encode one push without its envelope."""
        return _encode(push)

    def wrap_push(self, encoded: bytes) -> bytes:
        """Put an encoded push into its envelope."""
        return b'{"push":%b}' % encoded


JSON = JsonCodec()
"""The one instance, since messages cache their encoding per codec."""


def _decode_command(line: bytes) -> Command | Malformed:
    try:
        line.decode()  # raw payloads are passed on unread, so their bytes are checked here
        command = _decode(line)
    except msgspec.ValidationError:
        other = canonical(line, Command)
        return MALFORMED if other == line else _decode_command(other)
    except msgspec.DecodeError:
        replaced = replace_lone_surrogates(line)
        return MALFORMED if replaced == line else _decode_command(replaced)
    except (UnicodeDecodeError, RecursionError):
        return MALFORMED
    if command.publish is not None and command.publish.data:
        command.publish.data = compact(command.publish.data)
    return command


_MOST_ESCAPES = 20_000
"""A text with more backslashes is not repaired: replacing takes 5 ms then."""

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def replace_lone_surrogates(text: bytes) -> bytes:
    """Replace escaped halves of surrogate pairs by U+FFFD, as every UTF-8 encoder does.

    RFC 8259 §8.2 allows them and JavaScript writes them for a string that was cut in two, but decoders of
    UTF-8 reject them (docs/decisions/0004). A text with more than _MOST_ESCAPES backslashes stays as it is.
    """
    if text.count(b"\\") > _MOST_ESCAPES:
        return text
    return _ESCAPE.sub(lambda found: b"\\ufffd" if found[1] else found[0], text)


def compact(payload: bytes | Raw) -> Raw:
    """Remove line breaks from a JSON value, since they separate messages on every transport.

    JSON allows line breaks only between tokens, so the value stays the same.

    Raises ValueError if `payload` is not one JSON value in UTF-8.
    """
    text = bytes(payload)
    text.decode()
    try:
        _check(text)
    except msgspec.DecodeError as error:
        replaced = replace_lone_surrogates(text)
        if replaced != text:
            return compact(replaced)
        raise ValueError(str(error)) from None
    except RecursionError as error:
        raise ValueError(str(error)) from None
    if b"\n" in text or b"\r" in text:
        text = text.replace(b"\n", b"").replace(b"\r", b"")
    return Raw(text.strip(b" \t"))
