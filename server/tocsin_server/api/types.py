"""What the HTTP API is asked and what it answers (protocol §14), as typed values.

Requests are read strictly: a member of the wrong type is refused, an unknown one ignored. Results leave out
zero values where the protocol does. The OpenAPI document is generated from these types.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from tocsin_server.core.tokens import Override
from tocsin_server.protocol.messages import Offset, SincePosition

REASON_LIMIT_BYTES = 123
"""A WebSocket close frame holds 125 bytes, two of which are the code (RFC 6455 §5.5)."""

CALLS_LIMIT = 10_000
"""How many calls one request may hold, each channel of a broadcast being one.

Some hundred milliseconds' worth with an engine in memory: the body's size alone would allow for seconds.
"""

Channel = Annotated[str, Meta(min_length=1, description="The channel's name.")]
User = Annotated[str, Meta(min_length=1, description="Whose connections.")]
Client = Annotated[str, Meta(description="Only the connection with this client id.")]
Session = Annotated[
    str,
    Meta(description="Only the connection with this session id. No transport gives any, so none matches."),
]
UnixSeconds = Annotated[int, Meta(ge=0, le=2**40)]
Data = Annotated[Raw | UnsetType, Meta(description="The payload, any JSON value.")]
Info = Annotated[Raw | UnsetType, Meta(description="What others see of the user, any JSON value.")]
Base64 = Annotated[
    str,
    Meta(
        description="JSON in base64; wins over its plain sibling.",
        extra_json_schema={"contentEncoding": "base64"},
    ),
]


class Failure(Struct):
    """Why a call was refused. In transport error mode it is the whole body."""

    code: int
    message: str


# ------------------------------------------------------------------------------------------------- publishing


class Publishing(Struct, kw_only=True):
    """What every kind of publish says. `data` or `b64data` is required."""

    data: Data = UNSET
    b64data: Base64 = ""
    tags: dict[str, str] | None = None
    skip_history: Annotated[bool, Meta(description="Announce it without keeping it.")] = False
    idempotency_key: Annotated[
        str, Meta(description="Repeated within 300 s in the same channel, it gives the first answer.")
    ] = ""
    version: Annotated[Offset, Meta(description="Above 0: only newer versions are published.")] = 0
    version_epoch: Annotated[str, Meta(description="Versions compare only within one.")] = ""
    delta: Annotated[bool, Meta(description="Accepted, and ignored: payloads are sent whole.")] = False


class PublishRequest(Publishing, kw_only=True):
    """A publication for one channel."""

    channel: Channel


class BroadcastRequest(Publishing, kw_only=True):
    """The same publication for several channels."""

    channels: Annotated[list[Channel], Meta(min_length=1, max_length=CALLS_LIMIT)]


class PublishResult(Struct, omit_defaults=True):
    """The publication's position; empty where no log keeps it."""

    offset: int = 0
    epoch: str = ""


class BroadcastAnswer(Struct, omit_defaults=True):
    """What came of it in one channel: a result or an error."""

    result: PublishResult | None = None
    error: Failure | None = None


class BroadcastResult(Struct):
    """One answer for each channel, in their order."""

    responses: list[BroadcastAnswer]


# --------------------------------------------------------------------------------------------------- channels


class ChannelRequest(Struct):
    """Concerns one channel."""

    channel: Channel


class HistoryRequest(Struct):
    """A page of a channel's log."""

    channel: Channel
    limit: Annotated[
        int, Meta(ge=-(2**31), le=2**31 - 1, description="0 asks only for the top, a negative one for all.")
    ] = 0
    since: SincePosition | None = None
    reverse: Annotated[bool, Meta(description="Newest first.")] = False


class Member(Struct):
    """A connection, as others in the channel see it."""

    user: str
    client: str
    conn_info: Raw | UnsetType = UNSET
    chan_info: Raw | UnsetType = UNSET


class PresenceResult(Struct):
    """Who is in a channel, by client id."""

    presence: dict[str, Member]


class PresenceStatsResult(Struct):
    """How many are in a channel; anonymous connections are one user."""

    num_clients: int
    num_users: int


class KeptPublication(Struct, omit_defaults=True):
    """A publication in a log. `info` is who published it, if a client did."""

    data: Raw
    offset: int
    info: Member | None = None
    tags: dict[str, str] | None = None


class HistoryResult(Struct):
    """A page of a log; `offset` and `epoch` are the log's top."""

    publications: list[KeptPublication]
    epoch: str
    offset: int


class ChannelsRequest(Struct):
    """Which channels."""

    pattern: Annotated[str, Meta(description="A glob (`*`, `?`, `[…]`, `{a,b}`); empty: all.")] = ""


class ChannelFigures(Struct):
    """How many connections are subscribed, on all nodes."""

    num_clients: int


class ChannelsResult(Struct):
    """Channels with subscribers, by name."""

    channels: dict[str, ChannelFigures]


# ----------------------------------------------------------------------------------------- users' connections


class UserRequest(Struct, kw_only=True):
    """Concerns the connections of a user, on all nodes."""

    user: User
    client: Client = ""
    session: Session = ""


class SubscribeRequest(UserRequest, kw_only=True):
    """A subscription made from the server's side."""

    channel: Channel
    info: Info = UNSET
    b64info: Base64 = ""
    data: Data = UNSET
    b64data: Base64 = ""
    recover_since: SincePosition | None = None
    expire_at: Annotated[UnixSeconds, Meta(description="Unix time at which it ends; 0: never.")] = 0
    override: Override | None = None


class UnsubscribeRequest(UserRequest, kw_only=True):
    """The end of a subscription."""

    channel: Annotated[str, Meta(description="Empty: all of them.")] = ""


class DisconnectReason(Struct):
    """What the connections are told. Codes 3000-3499 and 4000-4499 invite them back."""

    code: Annotated[int, Meta(ge=3000, le=4999)]
    reason: Annotated[str, Meta(min_length=1, description=f"At most {REASON_LIMIT_BYTES} bytes of UTF-8.")]

    def __post_init__(self) -> None:
        if len(self.reason.encode()) > REASON_LIMIT_BYTES:
            raise ValueError(f"Expected `reason` of at most {REASON_LIMIT_BYTES} bytes")


class DisconnectRequest(UserRequest, kw_only=True):
    """The end of connections."""

    whitelist: Annotated[list[str], Meta(description="Client ids that are left alone.")] = []
    disconnect: DisconnectReason | None = None


class RefreshRequest(UserRequest, kw_only=True):
    """A new end for connections."""

    expired: Annotated[bool, Meta(description="End them now; they come back with a fresh token.")] = False
    expire_at: Annotated[UnixSeconds, Meta(description="Unix time at which they end; 0: never.")] = 0
    info: Info = UNSET


class EmptyResult(Struct):
    """It was done."""


# ------------------------------------------------------------------------------------------------ server, rpc


class InfoRequest(Struct):
    """Asks about all nodes."""


class NodeFigures(Struct):
    """One node.

    `uptime` is in seconds, `state` is `ready`, `deaf` or `draining`, `lag_seconds` how long announcements are
    under way to it.
    """

    uid: str
    name: str
    version: str
    num_clients: int
    num_users: int
    num_channels: int
    num_subs: int
    uptime: int
    address: str
    state: str
    memory_bytes: int
    lag_seconds: float


class DrainRequest(Struct):
    """A node that is to leave."""

    node: Annotated[str, Meta(min_length=1, description="Its uid or name, as `info` says it.")]


class InfoResult(Struct):
    """Every living node."""

    nodes: list[NodeFigures]


class RpcRequest(Struct):
    """A call of a method that the application registered."""

    method: Annotated[str, Meta(min_length=1)]
    params: Annotated[Raw | UnsetType, Meta(description="Any JSON value.")] = UNSET


class RpcResult(Struct):
    """What the method answered."""

    data: Raw


# --------------------------------------------------------------------------------------- several calls in one


class BatchCommand(Struct):
    """One call, under its method's name; the first that is set counts."""

    publish: PublishRequest | None = None
    broadcast: BroadcastRequest | None = None
    presence: ChannelRequest | None = None
    presence_stats: ChannelRequest | None = None
    history: HistoryRequest | None = None
    history_remove: ChannelRequest | None = None
    channels: ChannelsRequest | None = None
    info: InfoRequest | None = None
    rpc: RpcRequest | None = None
    disconnect: DisconnectRequest | None = None
    unsubscribe: UnsubscribeRequest | None = None
    subscribe: SubscribeRequest | None = None
    refresh: RefreshRequest | None = None


class BatchRequest(Struct):
    """Several calls. A member of the wrong type in any of them refuses them all.

    Each channel of a broadcast counts as one call.
    """

    commands: Annotated[list[BatchCommand | None], Meta(max_length=CALLS_LIMIT)]
    parallel: Annotated[bool, Meta(description="Do not wait for one before the next begins.")] = False


class BatchReply(Struct, omit_defaults=True):
    """One call's result, under its method's name, or its error."""

    error: Failure | None = None
    publish: PublishResult | None = None
    broadcast: BroadcastResult | None = None
    presence: PresenceResult | None = None
    presence_stats: PresenceStatsResult | None = None
    history: HistoryResult | None = None
    history_remove: EmptyResult | None = None
    channels: ChannelsResult | None = None
    info: InfoResult | None = None
    rpc: RpcResult | None = None
    disconnect: EmptyResult | None = None
    unsubscribe: EmptyResult | None = None
    subscribe: EmptyResult | None = None
    refresh: EmptyResult | None = None


class BatchResult(Struct):
    """One reply for each command, in their order."""

    replies: list[BatchReply]


class LegacyCommand(Struct):
    """A call to the single endpoint."""

    method: str
    id: Offset = 0
    params: Raw | UnsetType = UNSET


class LegacyReply(Struct, omit_defaults=True):
    """The answer to the command with the same `id`."""

    id: int = 0
    error: Failure | None = None
    result: Raw | UnsetType = UNSET
