"""What a codec does: bytes into commands, messages into bytes. Transports choose one per connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from tocsin_server.protocol.messages import Command, Malformed, Push, ServerMessage
from tocsin_server.protocol.payloads import Payload


class Codec(Protocol):
    """One wire format of the client protocol. Codecs are stateless, and compare by identity.

    A frame is what one WebSocket message carries. The encoding methods raise PayloadNotJson where the format
    cannot carry a payload of the message.
    """

    @property
    def name(self) -> str:
        """The format's name in subprotocols and in the query of a handshake."""

    @property
    def is_text(self) -> bool:
        """Whether frames are text, in UTF-8."""

    @property
    def separator(self) -> bytes:
        """What stands between two frames that are joined into one."""

    def decode_commands(self, data: bytes) -> Iterator[Command | Malformed]:
        """Yield the commands of one incoming frame, decoded one at a time.

        The iterator ends with MALFORMED where the bytes stop being valid. Payloads of the commands are in
        the form in which they may be published.
        """

    def encode(self, message: ServerMessage) -> bytes:
        """Encode one message, without what `join` adds to it.

        The publications of a subscribe result with `delta` are quoted.
        """

    def encode_push(self, push: Push) -> bytes:
        """Encode a push without its envelope: the form that is cached and shared between subscribers."""

    def payload_bytes(self, payload: Payload) -> bytes:
        """Return the bytes of a payload as clients of this format have them, for deltas.

        Raises PayloadNotJson if the format cannot carry the payload.
        """

    def quote(self, data: bytes) -> Payload:
        """Return the data of a publication, or a delta, in the form for a subscription that uses deltas.

        A format whose payloads are bytes leaves it as it is. In JSON it becomes a text, since a delta is no
        JSON value.
        """

    def wrap_push(self, encoded: bytes) -> bytes:
        """Put an encoded push into its envelope: `wrap_push(encode_push(p)) == encode(PushEnvelope(p))`."""

    def join(self, messages: Iterable[bytes]) -> bytes:
        """Return one frame of encoded messages."""
