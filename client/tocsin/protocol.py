"""The Centrifuge client protocol in JSON: commands, replies, pushes and their framing (protocol §1 to §5).

One WebSocket message carries JSON objects joined by a newline. Payloads reach callers as decoded Python
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from . import lenient
from .errors import BadProtocol
from .values import ClientInfo, Position, PresenceStats

PONG = "{}"
FRAME_BYTES = (
    32_768  # half of what servers accept in one message (65,536): commands beyond go into the next frame
)
_UINT32 = 2**32
T = TypeVar("T")


class Empty(Struct):
    """A request or result without fields."""


class WireError(Struct):
    """The ``error`` of a reply."""

    code: int = 0
    message: str = ""
    temporary: bool = False


class WirePublication(Struct):
    """A publication as a push or result carries it: the channel is said outside."""

    data: Any = None
    offset: int = 0
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    time: int = 0


class SubscribeRequest(Struct, omit_defaults=True):
    """The ``subscribe`` command; server-side positions in ``connect`` have the same shape."""

    channel: str = ""
    token: str = ""
    data: Any = None
    recover: bool = False
    offset: int = 0
    epoch: str = ""
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False


class SubscribeResult(Struct):
    """The answer to ``subscribe``; also the body of a ``subscribe`` push."""

    recoverable: bool = False
    positioned: bool = False
    epoch: str = ""
    offset: int = 0
    recovered: bool = False
    was_recovering: bool = False
    publications: list[WirePublication] | None = None
    expires: bool = False
    ttl: int = 0
    data: Any = None


class ConnectRequest(Struct, omit_defaults=True):
    """The first command of every connection."""

    token: str = ""
    data: Any = None
    subs: dict[str, SubscribeRequest] = {}
    name: str = ""
    version: str = ""
    headers: dict[str, str] = {}


class ConnectResult(Struct):
    """The answer to ``connect``; ``ping`` in seconds, 0 when the server sends none."""

    client: str
    version: str = ""
    expires: bool = False
    ttl: int = 0
    data: Any = None
    subs: dict[str, SubscribeResult] | None = None
    ping: int = 0
    pong: bool = False


class ChannelRequest(Struct, omit_defaults=True):
    """``unsubscribe``, ``presence`` and ``presence_stats``."""

    channel: str


class PublishRequest(Struct):
    """The ``publish`` command; ``data`` is sent even when it is null."""

    channel: str
    data: Any


class HistoryRequest(Struct, omit_defaults=True):
    """The ``history`` command; without a limit the server answers only the position."""

    channel: str
    limit: int = 0
    since: Position | None = None
    reverse: bool = False


class RpcRequest(Struct, omit_defaults=True):
    """The ``rpc`` command."""

    method: str
    data: Any = None


class RefreshRequest(Struct, omit_defaults=True):
    """``refresh``, and with a channel ``sub_refresh``."""

    token: str
    channel: str = ""


class RefreshResult(Struct):
    """``ttl`` in seconds until the next refresh is due."""

    expires: bool = False
    ttl: int = 0


class HistoryResult(Struct):
    """A page of history, and the log's top."""

    publications: list[WirePublication] | None = None
    epoch: str = ""
    offset: int = 0


class PresenceResult(Struct):
    """Who is in a channel, by client id."""

    presence: dict[str, ClientInfo] | None = None


class RpcResult(Struct):
    """What the procedure returned."""

    data: Any = None


class WireInfo(Struct):
    """The body of ``join`` and ``leave``."""

    info: ClientInfo


class WireCode(Struct):
    """The body of ``unsubscribe`` and ``disconnect`` pushes."""

    code: int = 0
    reason: str = ""


class Push(Struct):
    """Something the server says unasked; kinds unknown here are ignored."""

    channel: str = ""
    pub: WirePublication | None = None
    join: WireInfo | None = None
    leave: WireInfo | None = None
    unsubscribe: WireCode | None = None
    subscribe: SubscribeResult | None = None
    disconnect: WireCode | None = None


Request = (
    ConnectRequest
    | SubscribeRequest
    | ChannelRequest
    | PublishRequest
    | HistoryRequest
    | RpcRequest
    | RefreshRequest
)


Command = dict[str, Any]  # an id and exactly one method


class Reply(Struct):
    """One object from the server: an answer (id), a push, or a ping when it is empty."""

    id: int = 0
    error: WireError | None = None
    push: Push | None = None
    connect: ConnectResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: Empty | None = None
    publish: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStats | None = None
    history: HistoryResult | None = None
    rpc: RpcResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: RefreshResult | None = None

    @property
    def is_ping(self) -> bool:
        """A reply without id and without push is the server's ping (protocol §6)."""
        return self.id == 0 and self.push is None


_decoder = msgspec.json.Decoder(Reply)
_encoder = msgspec.json.Encoder()


def command(number: int, method: str, request: Request) -> Command:
    """Build one command; ids grow for the life of a client and do not restart (protocol §2)."""
    return {"id": number % _UINT32 or 1, method: request}


def to_json(value: Any) -> str:
    """Encode anything msgspec can (dataclasses, datetimes, …), and the odd strings it refuses."""
    try:
        return _encoder.encode(value).decode()
    except (UnicodeEncodeError, RecursionError):
        pass
    try:
        return lenient.encode(value)
    except TypeError:
        return lenient.encode(msgspec.to_builtins(value))


def payload(value: Any) -> msgspec.Raw:
    """Encode a caller's payload now, so that one that cannot be JSON fails where it was given."""
    return msgspec.Raw(to_json(value).encode())


def encode(commands: Sequence[Command]) -> list[str]:
    """Join commands into as few messages as the size of a frame allows, in order."""
    frames: list[list[str]] = []
    size = FRAME_BYTES
    for text in map(to_json, commands):
        size += len(text) + 1
        if size > FRAME_BYTES:
            frames.append([])
            size = len(text)
        frames[-1].append(text)
    return ["\n".join(frame) for frame in frames]


def decode(frame: str | bytes) -> list[Reply]:
    """Split and decode one message; raises ``BadProtocol`` when it is not this protocol."""
    text = frame if isinstance(frame, str) else frame.decode("utf-8", "replace")
    return [decode_as(_decoder, line) for line in text.split("\n") if line]


def decode_as(decoder: msgspec.json.Decoder[T], text: str) -> T:
    """Decode one JSON text strictly, else leniently, else raise ``BadProtocol``."""
    try:
        return decoder.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        pass
    try:
        return msgspec.convert(lenient.decode(text), decoder.type)
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadProtocol(f"the server sent what this protocol does not have: {error}") from error
