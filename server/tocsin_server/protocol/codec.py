"""What a codec does: bytes into commands, messages into bytes. Transports choose one per connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tocsin_server.protocol.messages import Command, Malformed, Push, ServerMessage


class Codec(Protocol):
    """One wire format of the client protocol. Codecs are stateless, and compare by identity."""

    def decode_commands(self, data: bytes) -> Iterator[Command | Malformed]:
        """Yield the commands of one incoming message, decoded one at a time.

        The iterator ends with MALFORMED where the bytes stop being valid. Payloads of the commands are in
        the form in which they may be published.
        """

    def encode(self, message: ServerMessage) -> bytes:
        """Encode one message, without the separator that joins it to the next."""

    def encode_push(self, push: Push) -> bytes:
        """Encode a push without its envelope: the form that is cached and shared between subscribers."""

    def wrap_push(self, encoded: bytes) -> bytes:
        """Put an encoded push into its envelope: `wrap_push(encode_push(p)) == encode(PushEnvelope(p))`."""
