"""The JSON codec of unidirectional transports: a client sends one connect request, and gets pushes alone.

A push has no envelope. The result of the connect request is a push too, and a ping is `{}` (protocol §16).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from tocsin_server.protocol.canonical import canonical
from tocsin_server.protocol.json import JSON, encode_other
from tocsin_server.protocol.json_text import replace_lone_surrogates
from tocsin_server.protocol.messages import (
    MALFORMED,
    Command,
    ConnectRequest,
    Malformed,
    Ping,
    Push,
    Reply,
    ServerMessage,
)
from tocsin_server.protocol.payloads import Payload

CONNECT_ID = 1

_encode = msgspec.json.Encoder(enc_hook=encode_other).encode
_decode = msgspec.json.Decoder(ConnectRequest).decode


class UnidirectionalJsonCodec:
    """Connect requests without a command around them, and pushes without an envelope."""

    name = "json"
    is_text = True
    separator = b"\n"

    def decode_commands(self, data: bytes) -> Iterator[Command | Malformed]:
        """Yield the connect command that one message holds."""
        request = decode_connect_request(data)
        yield MALFORMED if request is None else Command(CONNECT_ID, connect=request)

    def encode(self, message: ServerMessage) -> bytes:
        """Encode one message. The only reply is that to the connect command. Raises PayloadNotJson."""
        if isinstance(message, Ping):
            return b"{}"
        if isinstance(message, Reply):
            return _encode({"connect": message.connect})
        return JSON.encode_push(message.push)

    def encode_push(self, push: Push) -> bytes:
        """Encode one push: what a bidirectional client gets, without its envelope."""
        return JSON.encode_push(push)

    def payload_bytes(self, payload: Payload) -> bytes:
        """Return the text of a payload. Raises PayloadNotJson."""
        return JSON.payload_bytes(payload)

    def quote(self, data: bytes) -> Payload:
        """Return data as a JSON text. No unidirectional client asks for deltas."""
        return JSON.quote(data)

    def wrap_push(self, encoded: bytes) -> bytes:
        """Return the push as it is."""
        return encoded

    def join(self, messages: Iterable[bytes]) -> bytes:
        """Return the messages as lines, for a transport that divides them again."""
        return b"\n".join(messages)


UNIDIRECTIONAL_JSON = UnidirectionalJsonCodec()
"""The one instance, since messages cache their encoding per codec."""


def decode_connect_request(data: bytes) -> ConnectRequest | None:
    """Decode a connect request in JSON; None if it is not valid."""
    try:
        data.decode()
        return _decode(data)
    except msgspec.ValidationError:
        other = canonical(data, ConnectRequest)
    except msgspec.DecodeError:
        other = replace_lone_surrogates(data)
    except (UnicodeDecodeError, RecursionError):
        return None
    return None if other == data else decode_connect_request(other)
