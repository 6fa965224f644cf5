r"""What travels through Redis and lies in it, as bytes. Payloads are copied, never parsed.

    publication   1p<stamp> <offset> <epoch>\n<body>      offset 0 and no epoch where no log holds it
    join, leave   1j\n<info>   1l\n<info>
    log entry     id <offset>-<stamp>, field "1", value <body>
    presence      [lease, is announced, info]

A stamp is when it was published (see clock), and tells it from any other in its place. Body and info are
MessagePack; the 1 is the format's version. A node that reads another version than its own takes no notice, so
two versions of Tocsin that differ in it must not share a prefix.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw

from tocsin_server.protocol.messages import NO_JSON, ClientInfo, PresenceChange, Publication, Push

PUBLICATION = b"1p"
JOIN = b"1j\n"
LEAVE = b"1l\n"
FIELD = b"1"
"""The one field of a log entry; its name is the format's version."""

_Info = tuple[str, str, str, str]  # texts, since scripts read them, and Redis' MessagePack knows no bytes
_Body = tuple[bytes, _Info | None, dict[str, str] | None]
_Entry = tuple[str, int, _Info]

_encode = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode
_decode_info = msgspec.msgpack.Decoder(_Info).decode
_decode_entry = msgspec.msgpack.Decoder(_Entry).decode


def publication_head(stamp: int) -> bytes:
    """What a script completes by offset and epoch."""
    return b"1p%d " % stamp


def unlogged_head(stamp: int) -> bytes:
    """What stands before the body where no log holds it."""
    return b"1p%d 0 \n" % stamp


def encode_body(data: Raw, info: ClientInfo | None, tags: dict[str, str] | None) -> bytes:
    """A publication without its place in a log."""
    return _encode((memoryview(data), None if info is None else _pack(info), tags))


def decode_body(body: bytes | memoryview, offset: int) -> Publication:
    """A publication at `offset`."""
    data, info, tags = _decode_body(body)
    return Publication(Raw(data), offset, None if info is None else _unpack(info), tags)


def decode_publication(message: bytes) -> tuple[Publication, str, int]:
    """The publication that an announcement carries, its epoch, and its stamp."""
    end = message.index(b"\n")
    stamp, offset, epoch = message[len(PUBLICATION) : end].split(b" ")
    return decode_body(memoryview(message)[end + 1 :], int(offset)), epoch.decode(), int(stamp)


def encode_push(push: Push) -> bytes:
    """A join or a leave."""
    if push.join is not None:
        return JOIN + _encode(_pack(push.join.info))
    if push.leave is not None:
        return LEAVE + _encode(_pack(push.leave.info))
    raise ValueError("only joins and leaves are announced")


def decode_push(channel: str, message: bytes) -> Push:
    """The join or leave that an announcement carries."""
    body = PresenceChange(_unpack(_decode_info(memoryview(message)[len(JOIN) :])))
    return Push(channel, join=body) if message.startswith(JOIN) else Push(channel, leave=body)


def encode_entry(lease: str, is_announced: bool, info: ClientInfo) -> bytes:
    """An entry of presence: whose it is, and whether its leaving is to be announced."""
    return _encode((lease, int(is_announced), _pack(info)))


def decode_entry(entry: bytes) -> ClientInfo:
    """Who an entry of presence is about."""
    return _unpack(_decode_entry(entry)[2])


def _pack(info: ClientInfo) -> _Info:
    return info.user, info.client, bytes(info.conn_info).decode(), bytes(info.chan_info).decode()


def _unpack(info: _Info) -> ClientInfo:
    user, client, conn_info, chan_info = info
    return ClientInfo(user, client, _raw(conn_info), _raw(chan_info))


def _raw(text: str) -> Raw:
    return Raw(text.encode()) if text else NO_JSON
