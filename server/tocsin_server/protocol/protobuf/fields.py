"""Which field of a protobuf message has which number and type: the schema of the client protocol, as a table.

The numbers and types are those of `client.proto` in the public repository centrifugal/protocol. A field
counts if its struct in `messages` has it. All others are skipped when a message is read.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from tocsin_server.protocol import messages


class Scalar(Enum):
    """The type of a field that is no message."""

    UINT32 = auto()
    UINT64 = auto()
    """At most 2^63 - 1, as in JSON: a larger number is malformed."""
    INT32 = auto()
    INT64 = auto()
    BOOL = auto()
    STRING = auto()
    PAYLOAD = auto()
    """The type `bytes` of the schema, as a Payload."""


class FilterNode(Struct, omit_defaults=True):
    """A tags filter, or a part of one, as the schema has it. Sessions get the JSON of it."""

    op: str = ""
    key: str = ""
    cmp: str = ""
    val: str = ""
    vals: list[str] = []
    nodes: list[FilterNode] = []


class Message:
    """A message type: its struct, and the struct's fields by name. KeyError: a field has no number."""

    def __init__(self, struct: type[Struct], **fields: tuple[int, Kind]) -> None:
        self.struct = struct
        self.fields = {name: Field(*fields[name]) for name in struct.__struct_fields__}


class MapOf(NamedTuple):
    """A map whose keys are strings."""

    value: Scalar | Message


class ListOf(NamedTuple):
    """A repeated field."""

    item: Scalar | Message


class JsonOf(NamedTuple):
    """A message that the struct has as JSON. It is read as bytes first, so that its size can be limited."""

    message: Message


Kind: TypeAlias = "Scalar | Message | MapOf | ListOf | JsonOf"


class Field(NamedTuple):
    """One field."""

    number: int
    kind: Kind


BOOL, STRING, PAYLOAD = Scalar.BOOL, Scalar.STRING, Scalar.PAYLOAD
UINT32, UINT64, INT32, INT64 = Scalar.UINT32, Scalar.UINT64, Scalar.INT32, Scalar.INT64

FILTER = Message(
    FilterNode,
    op=(1, STRING),
    key=(2, STRING),
    cmp=(3, STRING),
    val=(4, STRING),
    vals=(5, ListOf(STRING)),
    nodes=(6, ListOf(STRING)),
)
FILTER.fields["nodes"] = Field(6, ListOf(FILTER))

CLIENT_INFO = Message(
    messages.ClientInfo,
    user=(1, STRING),
    client=(2, STRING),
    conn_info=(3, PAYLOAD),
    chan_info=(4, PAYLOAD),
)
PUBLICATION = Message(
    messages.Publication,
    data=(4, PAYLOAD),
    info=(5, CLIENT_INFO),
    offset=(6, UINT64),
    tags=(7, MapOf(STRING)),
    delta=(8, BOOL),
)

# --------------------------------------------------------------------------------- commands, client to server

CONNECT_REQUEST = Message(
    messages.ConnectRequest,
    token=(1, STRING),
    data=(2, PAYLOAD),
    subs=(
        3,
        MapOf(
            Message(messages.SubscriptionPosition, recover=(3, BOOL), epoch=(6, STRING), offset=(7, UINT64)),
        ),
    ),
    name=(4, STRING),
    version=(5, STRING),
)
SUBSCRIBE_REQUEST = Message(
    messages.SubscribeRequest,
    channel=(1, STRING),
    token=(2, STRING),
    recover=(3, BOOL),
    epoch=(6, STRING),
    offset=(7, UINT64),
    positioned=(9, BOOL),
    recoverable=(10, BOOL),
    join_leave=(11, BOOL),
    delta=(12, STRING),
    tf=(13, JsonOf(FILTER)),
    flag=(14, INT64),
    type=(15, INT32),
    data=(8, PAYLOAD),
)
UNSUBSCRIBE_REQUEST = Message(messages.UnsubscribeRequest, channel=(1, STRING))
PUBLISH_REQUEST = Message(messages.PublishRequest, channel=(1, STRING), data=(2, PAYLOAD))
PRESENCE_REQUEST = Message(messages.PresenceRequest, channel=(1, STRING))
PRESENCE_STATS_REQUEST = Message(messages.PresenceStatsRequest, channel=(1, STRING))
SINCE_POSITION = Message(messages.SincePosition, offset=(1, UINT64), epoch=(2, STRING))
HISTORY_REQUEST = Message(
    messages.HistoryRequest,
    channel=(1, STRING),
    limit=(7, INT32),
    since=(8, SINCE_POSITION),
    reverse=(9, BOOL),
)
RPC_REQUEST = Message(messages.RpcRequest, data=(1, PAYLOAD), method=(2, STRING))
SEND_REQUEST = Message(messages.SendRequest, data=(1, PAYLOAD))
REFRESH_REQUEST = Message(messages.RefreshRequest, token=(1, STRING))
SUB_REFRESH_REQUEST = Message(messages.SubRefreshRequest, channel=(1, STRING), token=(2, STRING))
COMMAND = Message(
    messages.Command,
    id=(1, UINT32),
    connect=(4, CONNECT_REQUEST),
    subscribe=(5, SUBSCRIBE_REQUEST),
    unsubscribe=(6, UNSUBSCRIBE_REQUEST),
    publish=(7, PUBLISH_REQUEST),
    presence=(8, PRESENCE_REQUEST),
    presence_stats=(9, PRESENCE_STATS_REQUEST),
    history=(10, HISTORY_REQUEST),
    send=(12, SEND_REQUEST),
    rpc=(13, RPC_REQUEST),
    refresh=(14, REFRESH_REQUEST),
    sub_refresh=(15, SUB_REFRESH_REQUEST),
)

# ----------------------------------------------------------------------- replies and pushes, server to client

JOIN_OR_LEAVE = Message(messages.PresenceChange, info=(1, CLIENT_INFO))
PUSH = Message(
    messages.Push,
    channel=(2, STRING),
    pub=(4, PUBLICATION),
    join=(5, JOIN_OR_LEAVE),
    leave=(6, JOIN_OR_LEAVE),
    unsubscribe=(7, Message(messages.UnsubscribePush, code=(2, UINT32), reason=(3, STRING))),
    subscribe=(
        9,
        Message(
            messages.SubscribePush,
            recoverable=(1, BOOL),
            epoch=(4, STRING),
            offset=(5, UINT64),
            positioned=(6, BOOL),
            data=(7, PAYLOAD),
        ),
    ),
    disconnect=(11, Message(messages.DisconnectPush, code=(1, UINT32), reason=(2, STRING))),
    refresh=(12, Message(messages.RefreshPush, expires=(1, BOOL), ttl=(2, UINT32))),
)
PUSH_NUMBER = 4
"""The field of a reply that is a push. To this codec, a push is a reply without an id."""

SUBSCRIBE_RESULT = Message(
    messages.SubscribeResult,
    expires=(1, BOOL),
    ttl=(2, UINT32),
    recoverable=(3, BOOL),
    epoch=(6, STRING),
    publications=(7, ListOf(PUBLICATION)),
    recovered=(8, BOOL),
    offset=(9, UINT64),
    positioned=(10, BOOL),
    data=(11, PAYLOAD),
    was_recovering=(12, BOOL),
    delta=(13, BOOL),
)
CONNECT_RESULT = Message(
    messages.ConnectResult,
    client=(1, STRING),
    version=(2, STRING),
    expires=(3, BOOL),
    ttl=(4, UINT32),
    data=(5, PAYLOAD),
    subs=(6, MapOf(SUBSCRIBE_RESULT)),
    ping=(7, UINT32),
    pong=(8, BOOL),
    session=(9, STRING),
    node=(10, STRING),
)
EMPTY = Message(messages.Empty)
REPLY = Message(
    messages.Reply,
    id=(1, UINT32),
    error=(
        2,
        Message(messages.ErrorBody, code=(1, UINT32), message=(2, STRING), temporary=(3, BOOL)),
    ),
    connect=(5, CONNECT_RESULT),
    subscribe=(6, SUBSCRIBE_RESULT),
    unsubscribe=(7, EMPTY),
    publish=(8, EMPTY),
    presence=(9, Message(messages.PresenceResult, presence=(1, MapOf(CLIENT_INFO)))),
    presence_stats=(
        10,
        Message(messages.PresenceStatsResult, num_clients=(1, UINT32), num_users=(2, UINT32)),
    ),
    history=(
        11,
        Message(
            messages.HistoryResult,
            publications=(1, ListOf(PUBLICATION)),
            epoch=(2, STRING),
            offset=(3, UINT64),
        ),
    ),
    rpc=(13, Message(messages.RpcResult, data=(1, PAYLOAD))),
    refresh=(
        14,
        Message(
            messages.RefreshResult,
            client=(1, STRING),
            version=(2, STRING),
            expires=(3, BOOL),
            ttl=(4, UINT32),
        ),
    ),
    sub_refresh=(15, Message(messages.SubRefreshResult, expires=(1, BOOL), ttl=(2, UINT32))),
)
