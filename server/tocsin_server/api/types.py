"""The requests and results of the HTTP API as typed values (docs/protocol.md §14).

Requests are decoded strictly: a member of a wrong type is refused, an unknown one is ignored. Results leave
out zero values where the protocol does. Those that a batch has by thousands are not tracked by the garbage
collector (`gc=False`), which would stop the node for tens of milliseconds. The OpenAPI document is generated
from these types, their docstrings and their descriptions.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from tocsin_server.core import glob
from tocsin_server.core.tokens import Override
from tocsin_server.protocol.messages import Offset, SincePosition

REASON_LIMIT_BYTES = 123
"""A WebSocket close frame holds 125 bytes, two of which are the code (RFC 6455 §5.5)."""

CALLS_LIMIT = 10_000
"""How many calls one request may have. Each channel of a broadcast counts as one.

With an engine in memory they take some hundred milliseconds. The limit of the body alone would allow seconds.
"""

CHANNEL_PATTERN = r"^(\$?([-a-zA-Z0-9_]{2,}:)?#[\s\S]*|[\x00-\x7f]*)$"
"""Names are ASCII, except the id of a personal channel's user (docs/protocol.md §13). The core checks it."""

BASE64_PATTERN = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
"""Base64 (RFC 4648 §4). No pattern can say that its content is JSON."""

ChannelName = Annotated[
    str,
    Meta(
        min_length=1,
        description="The name of the channel.",
        extra_json_schema={"pattern": CHANNEL_PATTERN},
    ),
]
UserId = Annotated[str, Meta(min_length=1, description="The user whose connections are meant.")]
ClientId = Annotated[
    str, Meta(description="The client id of a connection. Empty: all connections of the user.")
]
SessionId = Annotated[
    str,
    Meta(
        description="A session id. No connection of Tocsin has one, so a call with a session id does nothing."
    ),
]
UnixSeconds = Annotated[int, Meta(ge=0, le=2**40)]
REVOKED_NAME_LIMIT = 1024
"""How many characters a token's id or a user has that can be revoked, because every node keeps it."""

RevokedUntil = Annotated[
    UnixSeconds,
    Meta(
        description="Unix time until which the revocation is kept: that at which the tokens have expired. "
        "0: client.token_revocation_ttl from now."
    ),
]
Data = Annotated[Raw | UnsetType, Meta(description="The payload: any JSON value.")]
Info = Annotated[
    Raw | UnsetType, Meta(description="The information about a client that others see: any JSON value.")
]
Base64 = Annotated[
    str,
    Meta(
        description="JSON in base64. It has priority over the member without `b64`.",
        extra_json_schema={
            "contentEncoding": "base64",
            "contentMediaType": "application/json",
            "pattern": BASE64_PATTERN,
        },
    ),
]
Base64Bytes = Annotated[
    str,
    Meta(
        description="Any bytes in base64. It has priority over `data`. Bytes that are no JSON disconnect "
        "clients that speak JSON.",
        extra_json_schema={"contentEncoding": "base64", "pattern": BASE64_PATTERN},
    ),
]


class ApiError(Struct):
    """Why a call was refused. In transport error mode it is the whole body."""

    code: int
    message: str


# ------------------------------------------------------------------------------------------------- publishing


class PublicationFields(Struct, kw_only=True, gc=False):
    """The members of a publication. `data` or `b64data` is required."""

    data: Data = UNSET
    b64data: Base64Bytes = ""
    tags: dict[str, str] | None = None
    skip_history: Annotated[bool, Meta(description="Publish without keeping the publication in history.")] = (
        False
    )
    idempotency_key: Annotated[
        str, Meta(description="Repeated within 300 s in the same channel, it returns the first result.")
    ] = ""
    version: Annotated[
        Offset, Meta(description="Above 0: published only if newer than the channel's last version.")
    ] = 0
    version_epoch: Annotated[str, Meta(description="Versions compare only within the same epoch.")] = ""
    delta: Annotated[
        bool,
        Meta(
            description="Send only the difference from the publication before to clients that request it. "
            "Without effect where allowed_delta_types is empty."
        ),
    ] = False


class PublishRequest(PublicationFields, kw_only=True, gc=False):
    """A publication for one channel."""

    channel: ChannelName


class BroadcastRequest(PublicationFields, kw_only=True):
    """The same publication for several channels."""

    channels: Annotated[list[ChannelName], Meta(min_length=1, max_length=CALLS_LIMIT)]


class PublishResult(Struct, omit_defaults=True, gc=False):
    """The publication's position. Empty if the channel keeps no history."""

    offset: int = 0
    epoch: str = ""


class BroadcastResponse(Struct, omit_defaults=True, gc=False):
    """The result or the error in one channel."""

    result: PublishResult | None = None
    error: ApiError | None = None


class BroadcastResult(Struct):
    """One response for each channel, in their order."""

    responses: list[BroadcastResponse]


# --------------------------------------------------------------------------------------------------- channels


class ChannelRequest(Struct):
    """A request about one channel."""

    channel: ChannelName


class HistoryRequest(Struct):
    """A request for a page of a channel's history."""

    channel: ChannelName
    limit: Annotated[
        int,
        Meta(
            ge=-(2**31),
            le=2**31 - 1,
            description="0 returns the top alone, a negative number all publications.",
        ),
    ] = 0
    since: SincePosition | None = None
    reverse: Annotated[bool, Meta(description="Newest first.")] = False


class ClientDetails(Struct):
    """A client as other clients in the channel see it."""

    user: str
    client: str
    conn_info: Raw | UnsetType = UNSET
    chan_info: Raw | UnsetType = UNSET


class PresenceResult(Struct):
    """The clients in a channel, by client id."""

    presence: dict[str, ClientDetails]


class PresenceStatsResult(Struct):
    """How many clients and users are in a channel. Anonymous clients count as one user."""

    num_clients: int
    num_users: int


class HistoryPublication(Struct, omit_defaults=True, kw_only=True):
    """A publication in history, with `data`, or with `b64data` if the payload is no JSON.

    `info` describes the client that published it, if one did.
    """

    data: Raw | UnsetType = UNSET
    b64data: Annotated[
        str | UnsetType,
        Meta(
            description="A payload that is no JSON, in base64.",
            extra_json_schema={"contentEncoding": "base64"},
        ),
    ] = UNSET
    offset: int
    info: ClientDetails | None = None
    tags: dict[str, str] | None = None


class HistoryResult(Struct):
    """A page of history. `offset` and `epoch` are the channel's top."""

    publications: list[HistoryPublication]
    epoch: str
    offset: int


class ChannelsRequest(Struct):
    """A request for the channels that have subscribers."""

    pattern: Annotated[
        str,
        Meta(
            max_length=glob.LENGTH_LIMIT, description="A glob: `*`, `?`, `[…]`, `{a,b}`. Empty: all channels."
        ),
    ] = ""


class ChannelInfo(Struct):
    """How many clients are subscribed to a channel, on all nodes."""

    num_clients: int


class ChannelsResult(Struct):
    """The channels with subscribers, by name."""

    channels: dict[str, ChannelInfo]


# ----------------------------------------------------------------------------------------- users' connections


class UserRequest(Struct, kw_only=True):
    """A request about the connections of a user, on all nodes."""

    user: UserId
    client: ClientId = ""
    session: SessionId = ""


class SubscribeRequest(UserRequest, kw_only=True):
    """Subscribes connections to a channel."""

    channel: ChannelName
    info: Info = UNSET
    b64info: Base64 = ""
    data: Data = UNSET
    b64data: Base64Bytes = ""
    recover_since: SincePosition | None = None
    expire_at: Annotated[
        UnixSeconds, Meta(description="Unix time at which the subscription ends; 0: never.")
    ] = 0
    override: Override | None = None


class UnsubscribeRequest(UserRequest, kw_only=True):
    """Ends subscriptions."""

    channel: Annotated[
        str,
        Meta(description="The channel. Empty: all channels.", extra_json_schema={"pattern": CHANNEL_PATTERN}),
    ] = ""


class DisconnectReason(Struct):
    """Why connections are closed. With codes 3000-3499 and 4000-4499 clients reconnect."""

    code: Annotated[int, Meta(ge=3000, le=4999)]
    reason: Annotated[str, Meta(min_length=1, description=f"At most {REASON_LIMIT_BYTES} bytes of UTF-8.")]

    def __post_init__(self) -> None:
        if len(self.reason.encode()) > REASON_LIMIT_BYTES:
            raise ValueError(f"Expected `reason` of at most {REASON_LIMIT_BYTES} bytes")


class DisconnectRequest(UserRequest, kw_only=True):
    """Closes connections."""

    whitelist: Annotated[list[str], Meta(description="Client ids of connections that stay open.")] = []
    disconnect: DisconnectReason | None = None


class RefreshRequest(UserRequest, kw_only=True):
    """Changes when connections expire."""

    expired: Annotated[
        bool, Meta(description="They expire now, and the clients reconnect with a fresh token.")
    ] = False
    expire_at: Annotated[UnixSeconds, Meta(description="Unix time at which they expire; 0: never.")] = 0
    info: Info = UNSET


class RevokeTokenRequest(Struct):
    """Revokes one token."""

    uid: Annotated[
        str, Meta(min_length=1, max_length=REVOKED_NAME_LIMIT, description="The token's `jti` claim.")
    ]
    expire_at: RevokedUntil = 0


class InvalidateUserTokensRequest(Struct):
    """Revokes the tokens of a user."""

    user: Annotated[
        str, Meta(min_length=1, max_length=REVOKED_NAME_LIMIT, description="The user whose tokens are meant.")
    ]
    issued_before: Annotated[
        UnixSeconds,
        Meta(
            description="Tokens with an `iat` before this Unix time, or without `iat`, are revoked; 0: those "
            "issued before now."
        ),
    ] = 0
    expire_at: RevokedUntil = 0
    channel: Annotated[
        str,
        Meta(
            description="Only subscription tokens for this channel. Empty: all tokens of the user.",
            extra_json_schema={"pattern": CHANNEL_PATTERN},
        ),
    ] = ""


class EmptyResult(Struct):
    """The call succeeded."""


# ------------------------------------------------------------------------------------------------ server, rpc


class InfoRequest(Struct):
    """A request for all nodes."""


class NodeStatus(Struct):
    """One node: every member of the engine's `NodeInfo` except its channels."""

    uid: Annotated[str, Meta(description="The node's identity, unique for its lifetime.")]
    name: Annotated[str, Meta(description="The node's readable name.")]
    version: Annotated[str, Meta(description="The version of Tocsin.")]
    num_clients: Annotated[int, Meta(description="Connections.")]
    num_users: Annotated[int, Meta(description="Users. Anonymous clients count as one.")]
    num_channels: Annotated[int, Meta(description="Channels with subscribers.")]
    num_subs: Annotated[int, Meta(description="Subscriptions.")]
    uptime: Annotated[int, Meta(description="Seconds since the start.")]
    address: Annotated[str, Meta(description="The host and port where the node listens.")]
    state: Annotated[
        str,
        Meta(
            description="`ready`; `deaf`: its connection to Redis is broken; `draining`; or `silent`: it is "
            "alive and did not answer in time, so that its other members are zero."
        ),
    ]
    memory_bytes: Annotated[int, Meta(description="Memory that the process holds.")]
    lag_seconds: Annotated[
        float, Meta(description="How long the node's last probe through Redis was in flight.")
    ]
    warnings: Annotated[
        list[str], Meta(description="Settings or states of Redis that endanger a promise, as sentences.")
    ]


class DrainRequest(Struct):
    """Drains a node."""

    node: Annotated[
        str,
        Meta(
            min_length=1,
            description="The uid or name of the node, as in `info`. A name of several nodes is refused.",
        ),
    ]


class InfoResult(Struct):
    """Every node that is alive."""

    nodes: list[NodeStatus]


class RpcRequest(Struct):
    """Calls a method that the embedding application registered."""

    method: Annotated[str, Meta(min_length=1)]
    params: Annotated[Raw | UnsetType, Meta(description="Any JSON value.")] = UNSET


class RpcResult(Struct):
    """The result of the application's method."""

    data: Raw


# --------------------------------------------------------------------------------------- several calls in one


class BatchCommand(Struct, gc=False):
    """One call, under the name of its method. If several members are set, the first one counts."""

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
    revoke_token: RevokeTokenRequest | None = None
    invalidate_user_tokens: InvalidateUserTokensRequest | None = None


class BatchRequest(Struct):
    """Several calls. A member of a wrong type in one of them refuses them all.

    Each channel of a broadcast counts as one call.
    """

    commands: Annotated[list[BatchCommand | None], Meta(max_length=CALLS_LIMIT)]
    parallel: Annotated[
        bool, Meta(description="Run the calls concurrently, instead of one after the other.")
    ] = False


class BatchReply(Struct, omit_defaults=True, gc=False):
    """The result of one call, under the name of its method, or its error."""

    error: ApiError | None = None
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
    revoke_token: EmptyResult | None = None
    invalidate_user_tokens: EmptyResult | None = None


class BatchResult(Struct):
    """One reply for each command, in their order."""

    replies: list[BatchReply]


class LegacyCommand(Struct):
    """A command for the legacy endpoint."""

    method: str
    id: Offset = 0
    params: Raw | UnsetType = UNSET


class LegacyReply(Struct, omit_defaults=True):
    """The reply to the command with the same `id`."""

    id: int = 0
    error: ApiError | None = None
    result: Raw | UnsetType = UNSET
