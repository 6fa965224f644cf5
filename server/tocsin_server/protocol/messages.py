"""The messages of the client protocol as typed values (docs/protocol.md).

A codec turns them into bytes and back; nothing here knows its format. Application payloads (`data`, `info`)
are bytes that are passed on unread. A codec leaves zero values out, except those that clients read without
checking for their presence.
"""

from __future__ import annotations

from typing import Annotated, final

from msgspec import Meta, Raw, Struct

from tocsin_server.protocol.payloads import Payload

CommandId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]

NO_JSON = Raw(b"")
"""An absent payload. Always this object, since msgspec leaves a default value out by identity."""


@final
class Position(Struct, frozen=True, array_like=True, gc=False):
    """A place in a channel's history. Offsets compare only within one epoch.

    Where a publish returns a position or a future of one, `type(…) is Position` tells them apart.
    `isinstance` takes 30 times as long to find that a future is no struct.
    """

    offset: int
    epoch: str


class Wire(Struct, omit_defaults=True):
    """A message or a part of one. Unknown fields are ignored; zero values are left out."""


class ClientInfo(Wire):
    """A connection's user, client id and info, as other clients see them."""

    user: str
    client: str
    conn_info: Raw = NO_JSON
    """JSON also for protobuf clients, since presence shows it to every client and to the HTTP API."""
    chan_info: Raw = NO_JSON

    @property
    def size(self) -> int:
        """Its approximate size in bytes, once encoded."""
        return 100 + len(self.user) + len(self.conn_info) + len(self.chan_info)


class Publication(Wire):
    """One message of a channel. `offset` is 0 where the channel keeps no history."""

    data: Payload
    offset: int = 0
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None
    delta: bool = False
    """`data` is a delta to the publication before, for a subscription that uses deltas."""

    @property
    def has_offset(self) -> bool:
        """Whether the channel's history holds this publication."""
        return self.offset > 0

    @property
    def size(self) -> int:
        """Its approximate size in bytes, once encoded."""
        size = 64 + len(self.data)
        if self.info is not None:
            size += self.info.size
        if self.tags is not None:
            size += sum(len(name) + len(value) + 6 for name, value in self.tags.items())
        return size


# --------------------------------------------------------------------------------- commands, client to server


class SubscriptionPosition(Wire):
    """The position of a returning client in a server-side subscription."""

    recover: bool = False
    offset: Offset = 0
    epoch: str = ""


class ConnectRequest(Wire):
    """The first command: a token, and positions in server-side subscriptions."""

    token: str = ""
    data: Payload = NO_JSON
    subs: dict[str, SubscriptionPosition] = {}
    name: str = ""
    version: str = ""


class SubscribeRequest(Wire):
    """Subscribe to a channel, and recover from a position if `recover` is set."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: Offset = 0
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    flag: int = 0
    delta: str = ""
    """The kind of deltas that the client can apply."""
    tf: Raw = NO_JSON
    """A tags filter, as JSON."""
    type: int = 0
    data: Payload = NO_JSON
    """What the application wants to know, in a hook."""

    @property
    def refuses_unrecovered(self) -> bool:
        """Flag bit 2: the client prefers error 112 to `recovered: false`."""
        return bool(self.flag & 2)


class UnsubscribeRequest(Wire):
    """Unsubscribe from a channel."""

    channel: str = ""


class PublishRequest(Wire):
    """Publish into a channel."""

    channel: str = ""
    data: Payload = NO_JSON


class PresenceRequest(Wire):
    """Read which clients are in a channel."""

    channel: str = ""


class PresenceStatsRequest(Wire):
    """Read how many clients are in a channel."""

    channel: str = ""


class SincePosition(Wire):
    """The position at which a page of history begins."""

    offset: Offset = 0
    epoch: str = ""


class HistoryRequest(Wire):
    """Read a page of a channel's history. `limit` 0 reads only the top, a negative one everything."""

    channel: str = ""
    limit: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 0
    since: SincePosition | None = None
    reverse: bool = False


class RpcRequest(Wire):
    """Call an RPC method of the application."""

    method: str = ""
    data: Payload = NO_JSON


class SendRequest(Wire):
    """A message without a reply."""

    data: Payload = NO_JSON


class RefreshRequest(Wire):
    """A fresh connection token."""

    token: str = ""


class SubRefreshRequest(Wire):
    """A fresh subscription token."""

    channel: str = ""
    token: str = ""


class Command(Wire):
    """One command. `request` is the first method that is set, in the order below."""

    id: CommandId = 0
    connect: ConnectRequest | None = None
    subscribe: SubscribeRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    publish: PublishRequest | None = None
    presence: PresenceRequest | None = None
    presence_stats: PresenceStatsRequest | None = None
    history: HistoryRequest | None = None
    rpc: RpcRequest | None = None
    send: SendRequest | None = None
    refresh: RefreshRequest | None = None
    sub_refresh: SubRefreshRequest | None = None

    @property
    def is_pong(self) -> bool:
        """Whether it answers a ping: it has no id and is not `send`; other members do not matter."""
        return self.id == 0 and self.send is None

    @property
    def request(self) -> Request | None:
        """The first method that is set, in the protocol's order (docs/protocol.md §2); None if none is."""
        return (  # no request is false
            self.connect
            or self.subscribe
            or self.unsubscribe
            or self.publish
            or self.presence
            or self.presence_stats
            or self.history
            or self.rpc
            or self.send
            or self.refresh
            or self.sub_refresh
        )


Request = (
    ConnectRequest
    | SubscribeRequest
    | UnsubscribeRequest
    | PublishRequest
    | PresenceRequest
    | PresenceStatsRequest
    | HistoryRequest
    | RpcRequest
    | SendRequest
    | RefreshRequest
    | SubRefreshRequest
)

PONG = Command()
"""The command that a transport issues for a pong of its own, such as a WebSocket pong frame."""


class Malformed:
    """Marks where the bytes of commands could not be decoded. No command follows it."""

    is_pong = False


MALFORMED = Malformed()


# ---------------------------------------------------------------------------------- replies, server to client


class ErrorBody(Wire):
    """Why a command was refused."""

    code: int
    message: str
    temporary: bool = False


class SubscribeResult(Wire):
    """The result of a subscribe command."""

    recoverable: bool = False
    positioned: bool = False
    epoch: str = ""
    offset: int = 0
    recovered: bool = False
    was_recovering: bool = False
    publications: list[Publication] = []
    expires: bool = False
    ttl: int = 0
    data: Payload = NO_JSON
    delta: bool = False
    """The data of all publications is quoted, and they may come as deltas."""


class ConnectResult(Wire):
    """The result of a connect command. `ttl` and `ping` are in seconds."""

    client: str
    version: str
    expires: bool = False
    ttl: int = 0
    data: Payload = NO_JSON
    subs: dict[str, SubscribeResult] = {}
    ping: int = 0
    pong: bool = False
    session: str = ""
    """What the commands of an emulated connection name it by; empty for others."""
    node: str = ""


class Empty(Wire):
    """A result without content."""


class PresenceResult(Wire):
    """The clients in a channel, by client id."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Wire):
    """How many clients and different users are in a channel."""

    num_clients: int
    num_users: int


class HistoryResult(Wire):
    """A page of history, and its top."""

    publications: list[Publication]
    epoch: str
    offset: int


class RpcResult(Wire):
    """The result of an RPC method."""

    data: Payload = NO_JSON


class RefreshResult(Wire):
    """When the connection expires now; `ttl` in seconds."""

    client: str
    version: str
    expires: bool = False
    ttl: int = 0


class SubRefreshResult(Wire):
    """When the subscription expires now; `ttl` in seconds."""

    expires: bool = False
    ttl: int = 0


class Reply(Wire):
    """The answer to command `id`: one result or an error."""

    id: int
    error: ErrorBody | None = None
    connect: ConnectResult | None = None
    subscribe: SubscribeResult | None = None
    unsubscribe: Empty | None = None
    publish: Empty | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: HistoryResult | None = None
    rpc: RpcResult | None = None
    refresh: RefreshResult | None = None
    sub_refresh: SubRefreshResult | None = None


# ----------------------------------------------------------------------------------- pushes, server to client


class PresenceChange(Wire):
    """The body of a join or leave push."""

    info: ClientInfo


class UnsubscribePush(Wire):
    """The server ended a subscription."""

    code: int
    reason: str


class SubscribePush(Wire):
    """The server made a subscription."""

    recoverable: bool = False
    positioned: bool = False
    epoch: str = ""
    offset: int = 0
    data: Payload = NO_JSON


class RefreshPush(Wire):
    """The server moved the connection's expiry; `ttl` in seconds."""

    expires: bool = False
    ttl: int = 0


class DisconnectPush(Wire):
    """The server ends the connection, on a transport that has no close frame."""

    code: int
    reason: str


class Push(Wire):
    """A message that is not a reply, about `channel` or, without one, about the connection."""

    channel: str = ""
    pub: Publication | None = None
    join: PresenceChange | None = None
    leave: PresenceChange | None = None
    unsubscribe: UnsubscribePush | None = None
    subscribe: SubscribePush | None = None
    refresh: RefreshPush | None = None
    disconnect: DisconnectPush | None = None

    @property
    def size(self) -> int:
        """The approximate size in bytes of a publication, join or leave, once encoded."""
        if self.pub is not None:
            return len(self.channel) + self.pub.size
        change = self.join or self.leave
        return len(self.channel) + (change.info.size if change is not None else 0)


class PushEnvelope(Wire):
    """A push as a message of its own."""

    push: Push


class Ping(Wire):
    """The empty message, which the client must answer with an empty command."""


ServerMessage = Reply | PushEnvelope | Ping
"""Everything that a server sends to a client."""

PING = Ping()
EMPTY = Empty()
