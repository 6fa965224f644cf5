"""The messages of the client protocol as typed values (docs/protocol.md).

A codec turns them into bytes and back; nothing here knows its format. Application payloads (`data`, `info`)
are bytes that are passed on unread. A codec leaves zero values out, except those that clients read without
checking for their presence.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated, NamedTuple

from msgspec import Meta, Raw, Struct

CommandId = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Offset = Annotated[int, Meta(ge=0, le=2**63 - 1)]

NO_JSON = Raw(b"")
"""An absent payload.

The same object everywhere, since msgspec leaves a default out of its output by identity.
"""


class Position(NamedTuple):
    """A place in a channel's log. Offsets compare only within one epoch."""

    offset: int
    epoch: str


class Wire(Struct, omit_defaults=True):
    """A value that travels: unknown fields are ignored, zero values left out."""


class ClientInfo(Wire):
    """Who a connection is, as other clients see it."""

    user: str
    client: str
    conn_info: Raw = NO_JSON
    chan_info: Raw = NO_JSON

    @property
    def size(self) -> int:
        """Its approximate size in bytes, once encoded."""
        return 100 + len(self.user) + len(self.conn_info) + len(self.chan_info)


class Publication(Wire):
    """One message of a channel. `offset` is 0 where the channel keeps no history."""

    data: Raw
    offset: int = 0
    info: ClientInfo | None = None
    tags: dict[str, str] | None = None

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
    """Where a returning client stood in a server-side subscription."""

    recover: bool = False
    offset: Offset = 0
    epoch: str = ""


class ConnectRequest(Wire):
    """The first command: who is there, and where it stood in server-side subscriptions."""

    token: str = ""
    data: Raw = NO_JSON
    subs: dict[str, SubscriptionPosition] = {}
    name: str = ""
    version: str = ""


class SubscribeRequest(Wire):
    """Enter a channel, perhaps recovering from a position."""

    channel: str = ""
    token: str = ""
    recover: bool = False
    epoch: str = ""
    offset: Offset = 0
    positioned: bool = False
    recoverable: bool = False
    join_leave: bool = False
    flag: int = 0
    tf: Raw = NO_JSON
    """A tags filter, which is refused: no channel allows one."""
    type: int = 0

    @property
    def refuses_unrecovered(self) -> bool:
        """Flag bit 2: the client prefers error 112 to `recovered: false`."""
        return bool(self.flag & 2)


class UnsubscribeRequest(Wire):
    """Leave a channel."""

    channel: str = ""


class PublishRequest(Wire):
    """Publish into a channel."""

    channel: str = ""
    data: Raw = NO_JSON


class PresenceRequest(Wire):
    """Asks who is in a channel."""

    channel: str = ""


class PresenceStatsRequest(Wire):
    """Asks how many are in a channel."""

    channel: str = ""


class SincePosition(Wire):
    """Where a page of history begins."""

    offset: Offset = 0
    epoch: str = ""


class HistoryRequest(Wire):
    """A page of a channel's log. `limit` 0 asks only for the top, a negative one for all."""

    channel: str = ""
    limit: Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)] = 0
    since: SincePosition | None = None
    reverse: bool = False


class RpcRequest(Wire):
    """Call a method the application registered."""

    method: str = ""
    data: Raw = NO_JSON


class SendRequest(Wire):
    """A message without a reply."""

    data: Raw = NO_JSON


class RefreshRequest(Wire):
    """A fresh connection token."""

    token: str = ""


class SubRefreshRequest(Wire):
    """A fresh subscription token."""

    channel: str = ""
    token: str = ""


class Command(Wire):
    """One command. The first method that is set, in the order below, is the one that counts."""

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
        """Whether this command answers a ping: it has no id and is not `send`, whatever else it carries."""
        return self.id == 0 and self.send is None

    @property
    def request(self) -> Request | None:
        """The first method that is set, in the protocol's order (docs/protocol.md §2); None if none is."""
        return next((request for request in _requests(self) if request is not None), None)


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

_requests = attrgetter(
    "connect",
    "subscribe",
    "unsubscribe",
    "publish",
    "presence",
    "presence_stats",
    "history",
    "rpc",
    "send",
    "refresh",
    "sub_refresh",
)

PONG = Command()
"""The command that a transport passes on where a ping was answered below the protocol."""


class Malformed:
    """Stands in a sequence of commands where the bytes could not be decoded; no command follows it."""


MALFORMED = Malformed()


# ---------------------------------------------------------------------------------- replies, server to client


class ErrorBody(Wire):
    """Why a command was refused."""

    code: int
    message: str
    temporary: bool = False


class SubscribeResult(Wire):
    """What a subscription got."""

    recoverable: bool = False
    positioned: bool = False
    epoch: str = ""
    offset: int = 0
    recovered: bool = False
    was_recovering: bool = False
    publications: list[Publication] = []
    expires: bool = False
    ttl: int = 0
    data: Raw = NO_JSON


class ConnectResult(Wire):
    """What a connection got. `ttl` and `ping` are seconds."""

    client: str
    version: str
    expires: bool = False
    ttl: int = 0
    subs: dict[str, SubscribeResult] = {}
    ping: int = 0
    pong: bool = False
    node: str = ""


class Empty(Wire):
    """A result that says only that it was done."""


class PresenceResult(Wire):
    """Who is in a channel, by client id."""

    presence: dict[str, ClientInfo]


class PresenceStatsResult(Wire):
    """How many are in a channel."""

    num_clients: int
    num_users: int


class HistoryResult(Wire):
    """A page of a log, and its top."""

    publications: list[Publication]
    epoch: str
    offset: int


class RpcResult(Wire):
    """What a method answered."""

    data: Raw = NO_JSON


class RefreshResult(Wire):
    """Until when the connection lives now; `ttl` in seconds."""

    client: str
    version: str
    expires: bool = False
    ttl: int = 0


class SubRefreshResult(Wire):
    """Until when the subscription lives now; `ttl` in seconds."""

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
    """Body of a join or leave push."""

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
    data: Raw = NO_JSON


class RefreshPush(Wire):
    """The server moved the connection's expiry; `ttl` in seconds."""

    expires: bool = False
    ttl: int = 0


class Push(Wire):
    """Something the client did not ask for, about `channel` or, without one, about the connection."""

    channel: str = ""
    pub: Publication | None = None
    join: PresenceChange | None = None
    leave: PresenceChange | None = None
    unsubscribe: UnsubscribePush | None = None
    subscribe: SubscribePush | None = None
    refresh: RefreshPush | None = None

    @property
    def size(self) -> int:
        """The approximate size in bytes of a publication, join or leave, once encoded."""
        if self.pub is not None:
            return len(self.channel) + self.pub.size
        change = self.join or self.leave
        return len(self.channel) + (change.info.size if change is not None else 0)


class PushEnvelope(Wire):
    """A push as it stands in a message."""

    push: Push


class Ping(Wire):
    """The empty object, which asks whether the peer is still there."""


ServerMessage = Reply | PushEnvelope | Ping
"""Everything that a server sends to a client."""

PING = Ping()
EMPTY = Empty()
