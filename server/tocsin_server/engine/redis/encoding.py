r"""The encoding of messages, history entries and presence entries in Redis.

Payloads are copied, never parsed.

    publication      1p<stamp> <offset> <epoch>\n<body>    offset 0 and no epoch if it is not in the history
                     1d<stamp> …                           the same; it may be delivered as a delta
    join, leave      1j\n<info>   1l\n<info>
    request          2q\n<signature><JSON>   to every node (see nodes and signatures)
    response         2r\n<signature><JSON>   to the node that sent the request
    commands         1c\n<signature><MessagePack>   of an emulated connection, to its node (see forwarding)
    receipt          1a\n<signature><MessagePack>   to the node that sent the commands
    history entry    id <offset>-<stamp>, field "1", value <body>
    presence entry   [lease, is announced, info]

A stamp is the time of the publish (see clock). It also distinguishes two publications at the same offset.
Body and info are MessagePack. Data is a byte string, or an extension of the type BINARY if it is not JSON on
one line. The digit is the version of the format. A node ignores messages and presence entries of another
version, and logs the first of them (`OtherVersions`). A request that a node of another version ignores has no
response, so the sender reports that node as silent.
"""

from __future__ import annotations

import msgspec
import structlog
from msgspec import Raw
from msgspec.msgpack import Ext

from tocsin_server.protocol.messages import NO_JSON, ClientInfo, PresenceChange, Publication, Push
from tocsin_server.protocol.payloads import Binary, Payload

PUBLICATION = b"1p"
DELTA_PUBLICATION = b"1d"
JOIN = b"1j\n"
LEAVE = b"1l\n"
REQUEST = b"2q\n"
RESPONSE = b"2r\n"
COMMANDS = b"1c\n"
RECEIPT = b"1a\n"
FIELD = b"1"
"""The only field of a history entry. Its name is the version of the format."""

BINARY = 1
"""The extension type of a payload that is not JSON on one line."""

log = structlog.get_logger()

_Info = tuple[str, str, str, str]  # strings, because the scripts read them, and cmsgpack has no byte strings
_Body = tuple[bytes | Ext, _Info | None, dict[str, str] | None]
_PresenceEntry = tuple[str, int, _Info]

_encode = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode
_decode_info = msgspec.msgpack.Decoder(_Info).decode
_decode_presence_entry = msgspec.msgpack.Decoder(_PresenceEntry).decode


class OtherVersions:
    """Logs the first message of each kind that has another version of the format.

    The mutable state is the kinds that were logged.
    """

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def ignore(self, kind: str, **fields: object) -> None:
        """Note that a message was ignored. `kind` is a plural, such as `requests`."""
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning(
                "messages_of_other_version_ignored",
                kind=kind,
                hint="another version of Tocsin shares this Redis, database and engine.prefix",
                **fields,
            )


def publication_without_history(head: bytes, stamp: int, body: bytes) -> bytes:
    """The message of a publication that is not stored, for a publish without a script."""
    return b"%b%d 0 \n%b" % (head, stamp, body)


def encode_body(data: Payload, info: ClientInfo | None, tags: dict[str, str] | None) -> bytes:
    """Encode a publication without its offset."""
    payload = Ext(BINARY, bytes(data)) if isinstance(data, Binary) else memoryview(data)
    return _encode((payload, None if info is None else _pack(info), tags))


def decode_body(body: bytes | memoryview, offset: int) -> Publication:
    """Decode a body into the publication at `offset`."""
    data, info, tags = _decode_body(body)
    payload = Binary(data.data) if isinstance(data, Ext) else Raw(data)
    return Publication(payload, offset, None if info is None else _unpack(info), tags)


def decode_publication(message: bytes) -> tuple[Publication, str, int]:
    """Decode a message into a publication, its epoch and its stamp. Raises ValueError if it is malformed."""
    end = message.index(b"\n")
    stamp, offset, epoch = message[len(PUBLICATION) : end].split(b" ")
    return decode_body(memoryview(message)[end + 1 :], _number(offset)), epoch.decode(), _number(stamp)


def encode_push(push: Push) -> bytes:
    """Encode a join or a leave. Raises ValueError for any other push."""
    if push.join is not None:
        return JOIN + _encode(_pack(push.join.info))
    if push.leave is not None:
        return LEAVE + _encode(_pack(push.leave.info))
    raise ValueError("only joins and leaves can be encoded")


def decode_push(channel: str, message: bytes) -> Push:
    """Decode a message into a join or a leave. Raises ValueError if it is malformed."""
    body = PresenceChange(_unpack(_decode_info(memoryview(message)[len(JOIN) :])))
    return Push(channel, join=body) if message.startswith(JOIN) else Push(channel, leave=body)


def encode_presence_entry(lease: str, is_announced: bool, info: ClientInfo) -> bytes:
    """Encode a presence entry: its lease, whether its join was published, and the client's info."""
    return _encode((lease, int(is_announced), _pack(info)))


def decode_presence_entry(entry: bytes) -> ClientInfo:
    """Decode the client's info from a presence entry."""
    return _unpack(_decode_presence_entry(entry)[2])


def _number(digits: bytes) -> int:
    """A number of 63 bits, as Redis counts. Raises ValueError if it is none."""
    number = int(digits) if digits.isdigit() else -1
    if not 0 <= number < 2**63:
        raise ValueError("a number is out of range")
    return number


def _pack(info: ClientInfo) -> _Info:
    return info.user, info.client, bytes(info.conn_info).decode(), bytes(info.chan_info).decode()


def _unpack(info: _Info) -> ClientInfo:
    user, client, conn_info, chan_info = info
    return ClientInfo(user, client, _raw(conn_info), _raw(chan_info))


def _raw(text: str) -> Raw:
    return Raw(text.encode()) if text else NO_JSON
