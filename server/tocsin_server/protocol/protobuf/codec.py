"""The protobuf codec: one frame carries one or more messages, each after its length.

The `protobuf` library reads and writes the messages (docs/decisions/0019). Its rules are those of the
language. A field that is not known, or has another wire type, is skipped. One that is repeated replaces the
one before, and a message is merged into the one before. Malformed are bytes that the library refuses, such as
a string that is not UTF-8 or more than 100 messages inside each other, and values that are out of range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import DecodeError

from tocsin_server.protocol.messages import (
    MALFORMED,
    Command,
    Malformed,
    Ping,
    Publication,
    Push,
    PushEnvelope,
    ServerMessage,
)
from tocsin_server.protocol.payloads import Binary, Payload
from tocsin_server.protocol.protobuf.classes import COMMAND_CLASS, PUSH_CLASS, REPLY_CLASS
from tocsin_server.protocol.protobuf.conversion import OutOfRange, choice_reader_of, writer_of
from tocsin_server.protocol.protobuf.fields import COMMAND, PUSH, REPLY

_PUSH_KEY = b"\x22"
"""What precedes a push in a reply: field 4, with a length."""

_LONGEST_VARINT = 10
"""Bytes of a number of 64 bits, of which each has 7."""

_read_command = choice_reader_of(COMMAND)
_reply_values = writer_of(REPLY)
_push_values = writer_of(PUSH)


class ProtobufCodec:
    """The codec of `centrifuge-protobuf`. A push is a reply without an id, and a ping is an empty one."""

    name = "protobuf"
    is_text = False
    separator = b""

    def decode_commands(self, data: bytes) -> Iterator[Command | Malformed]:
        """Yield the commands of one frame. An empty frame is malformed; an empty command is a pong."""
        at = 0
        while at < len(data) or not data:
            start, end = _next_message(data, at)
            command = _decode_command(data[start:end]) if end <= len(data) else MALFORMED
            yield command
            if command is MALFORMED:
                return
            at = end

    def encode(self, message: ServerMessage) -> bytes:
        """Encode one message, without its length."""
        if isinstance(message, Ping):
            return b""
        if isinstance(message, PushEnvelope):
            return self.wrap_push(self.encode_push(message.push))
        encoded: bytes = REPLY_CLASS(**_reply_values(message)).SerializeToString()
        return encoded

    def encode_push(self, push: Push) -> bytes:
        """Encode one push without its envelope."""
        if push.pub is not None:
            return _encode_publication(push.channel, push.pub)
        encoded: bytes = PUSH_CLASS(**_push_values(push)).SerializeToString()
        return encoded

    def payload_bytes(self, payload: Payload) -> bytes:
        """Return the payload itself."""
        return bytes(payload)

    def quote(self, data: bytes) -> Payload:
        """Return the same bytes."""
        return Binary(data)

    def wrap_push(self, encoded: bytes) -> bytes:
        """Put an encoded push into its envelope."""
        return _PUSH_KEY + varint(len(encoded)) + encoded

    def join(self, messages: Iterable[bytes]) -> bytes:
        """One frame of encoded messages."""
        return b"".join([varint(len(message)) + message for message in messages])


PROTOBUF = ProtobufCodec()
"""The one instance, since messages cache their encoding per codec."""


def varint(number: int) -> bytes:
    """A number in groups of seven bits, the lowest first. It must not be negative."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80,)) + varint(number >> 7)


def _next_message(data: bytes, at: int) -> tuple[int, int]:
    """Where the message begins and ends whose length is at `at`. The end of a malformed one is too far."""
    size = shift = 0
    for index in range(at, min(at + _LONGEST_VARINT, len(data))):
        size |= (data[index] & 0x7F) << shift
        if data[index] < 0x80:
            return index + 1, index + 1 + size
        shift += 7
    return at, len(data) + 1


def _decode_command(data: bytes) -> Command | Malformed:
    try:
        command: Command = _read_command(COMMAND_CLASS.FromString(data))
    except (DecodeError, OutOfRange):
        return MALFORMED
    return command


def _encode_publication(channel: str, publication: Publication) -> bytes:
    """Encode the push of a publication: what the table says too, in half the time."""
    push: Any = PUSH_CLASS(channel=channel)
    pub = push.pub
    pub.data = bytes(publication.data)
    if publication.offset:
        pub.offset = publication.offset
    if publication.info is not None:
        info = publication.info
        pub.info.user, pub.info.client = info.user, info.client
        pub.info.conn_info, pub.info.chan_info = bytes(info.conn_info), bytes(info.chan_info)
    if publication.tags:
        pub.tags.update(publication.tags)
    if publication.delta:
        pub.delta = True
    encoded: bytes = push.SerializeToString()
    return encoded
