"""The JSON codec: one frame carries one or more JSON objects, separated by exactly one newline.

Application payloads are raw JSON. They are checked to be JSON when they enter, and never parsed. Those that
entered as other bytes are checked when they are encoded (see payloads).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from tocsin_server.protocol.canonical import canonical
from tocsin_server.protocol.json_text import compact, replace_lone_surrogates
from tocsin_server.protocol.messages import (
    MALFORMED,
    Command,
    Malformed,
    Push,
    Reply,
    ServerMessage,
    SubscribeResult,
)
from tocsin_server.protocol.payloads import Binary, Payload, json_of


def encode_other(value: object) -> Raw:
    """Called by the encoder for what is no JSON type."""
    if isinstance(value, Binary):
        return json_of(value)
    raise TypeError(f"a message has a {type(value).__name__}")


_encode = msgspec.json.Encoder(enc_hook=encode_other).encode
_decode = msgspec.json.Decoder(Command).decode


class JsonCodec:
    """The codec of `centrifuge-json`, and of Server-Sent Events."""

    name = "json"
    is_text = True
    separator = b"\n"

    def decode_commands(self, data: bytes) -> Iterator[Command | Malformed]:
        """Return the commands of one message. Several are decoded as they are needed.

        One trailing newline is tolerated. An empty message, an empty line and invalid UTF-8 are malformed.
        """
        end = len(data) - data.endswith(b"\n")
        if data.find(b"\n", 0, end) < 0:
            return iter((_decode_command(data[:end]),))
        return self._decode_lines(data, end)

    def _decode_lines(self, data: bytes, end: int) -> Iterator[Command | Malformed]:
        start = 0
        while (line_end := data.find(b"\n", start, end)) >= 0:  # thousands of lines may never be reached
            command = _decode_command(data[start:line_end])
            yield command
            if command is MALFORMED:
                return
            start = line_end + 1
        yield _decode_command(data[start:end])

    def encode(self, message: ServerMessage) -> bytes:
        """Encode one message as one line, without the newline. Raises PayloadNotJson."""
        if isinstance(message, Reply) and message.subscribe is not None and message.subscribe.delta:
            return _encode(_quoted(message, message.subscribe))
        return _encode(message)

    def encode_push(self, push: Push) -> bytes:
        """Encode one push without its envelope. Raises PayloadNotJson."""
        return _encode(push)

    def payload_bytes(self, payload: Payload) -> bytes:
        """Return the text of a payload. Raises PayloadNotJson."""
        return bytes(json_of(payload))

    def quote(self, data: bytes) -> Raw:
        """Return data as a JSON text."""
        return _quote(data)

    def wrap_push(self, encoded: bytes) -> bytes:
        """Put an encoded push into its envelope."""
        return b'{"push":%b}' % encoded

    def join(self, messages: Iterable[bytes]) -> bytes:
        """One frame of encoded messages: their lines."""
        return b"\n".join(messages)


JSON = JsonCodec()
"""The one instance, since messages cache their encoding per codec."""


def _quote(data: bytes) -> Raw:
    return Raw(_encode(data.decode()))


def _quoted(reply: Reply, result: SubscribeResult) -> Reply:
    publications = [replace(one, data=_quote(bytes(json_of(one.data)))) for one in result.publications]
    return replace(reply, subscribe=replace(result, publications=publications))


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
