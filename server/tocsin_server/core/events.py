"""The events a session handles, and the effects it returns.

Neither does anything by itself. A session never waits. Where it needs the engine or an answer from
outside, it returns an effect, and the answer arrives later as an event:

    ReserveConnection  ->  ConnectionReserved or ConnectionRefused
    OpenSubscriptions  ->  SubscriptionsOpened or SubscriptionsFailed
    Execute            ->  Executed
    Authorize          ->  Authorized

Events and effects are msgspec structs, which are made several times faster than dataclasses.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Raw, Struct

from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.form import PLAIN, Form
from tocsin_server.core.positions import History
from tocsin_server.core.tokens import ConnectionClaims, Override, SubscriptionClaims
from tocsin_server.errors import SERVER_UNSUBSCRIBE, Disconnect, Refusal, Unsubscribed
from tocsin_server.protocol import messages
from tocsin_server.protocol.messages import NO_JSON, ClientInfo, Position, ServerMessage
from tocsin_server.protocol.payloads import Payload


class Timestamp(Struct, frozen=True, gc=False):
    """One moment on both clocks: `monotonic` seconds for deadlines, `unix` seconds for token claims."""

    monotonic: float
    unix: float


# ------------------------------------------------------------------------------- events: from the transport


class Received(Struct, frozen=True):
    """The client sent commands, or its transport issued them for a client that cannot send any.

    The session takes them one at a time, so a lazy iterable is decoded only as far as it is read. It keeps
    the rest for its next turns, so that the caller must not change what the iterable reads.
    """

    commands: Iterable[messages.Command | messages.Malformed]


class ConnectionLost(Struct, frozen=True):
    """The connection is gone. Nothing can reach the client from now on."""


class DeadlineReached(Struct, frozen=True):
    """The session's deadline has come."""


class Turn(Struct, frozen=True):
    """The session's next turn has come. It is due as long as `Session.needs_turn`."""


# ----------------------------------------------------------------- events: from the engine and from outside


class SubscriptionsOpened(Struct, frozen=True):
    """An `OpenSubscriptions` succeeded.

    Each history is what was read, continued with what was received meanwhile; None where nothing was read.
    The event must be handled in the same step in which the histories are merged, because `GoLive` makes the
    connection a subscriber from exactly there on.

    The histories of `continued` channels are first pages: the client recovers, and gets the later pages after
    the reply, before anything else of the channel.
    """

    histories: Mapping[str, History | None]
    continued: Collection[str] = ()


class SubscriptionsFailed(Struct, frozen=True):
    """An `OpenSubscriptions` failed, for all its channels."""

    channels: Sequence[str]
    why: Refusal = errors.INTERNAL_ERROR


class ConnectionReserved(Struct, frozen=True):
    """A `ReserveConnection` succeeded: the user may have this connection."""


class ConnectionRefused(Struct, frozen=True):
    """A `ReserveConnection` failed. A refusal answers the connect command."""

    why: Refusal | Disconnect


class Executed(Struct, frozen=True):
    """The answer to an `Execute` with the same id."""

    id: int
    outcome: Struct | Refusal


class Approval(Struct, frozen=True):
    """Go on with `request`, which may differ from the client's; `claims` take the place of its token's."""

    request: messages.Request
    claims: ConnectionClaims | SubscriptionClaims | None = None
    data: Payload = NO_JSON
    """What the client gets with the connect or subscribe reply; NO_JSON: what the claims name."""
    is_permitted: bool = False
    """A publish command needs no option of the channel that permits it besides."""
    skip_history: bool = False
    """A publication is not kept in the history."""


class Renewal(Struct, frozen=True):
    """The connection or the subscription goes on until unix second `expire_at` (0: for ever).

    It answers refresh and sub_refresh requests. `info` replaces the former one, unless it is NO_JSON.
    """

    expire_at: float = 0
    info: Raw = NO_JSON
    is_decided: bool = True
    """Whether the application decided it. Otherwise it counts as issued when what it renews was."""


AuthorizedOutcome = Approval | Renewal | messages.RpcResult | Refusal | Disconnect
"""An RpcResult answers an RPC request itself."""


class Authorized(Struct, frozen=True):
    """The answer to an `Authorize` with the same id. An answer after its time limit is ignored."""

    id: int
    outcome: AuthorizedOutcome


class ChannelReset(Struct, frozen=True):
    """A channel's history was trimmed or replaced, so publications after the client's position are lost."""

    channel: str


class TokensRevoked(Struct, frozen=True):
    """Tokens were revoked, perhaps those of this connection: `SessionContext.revocations` has changed."""


# ------------------------ events: from the server's API These travel between nodes, so they are wire types.


class ServerSubscribe(Struct, frozen=True, omit_defaults=True, tag=True):
    """Subscribe this connection from the server's side, until unix second `expire_at` (0: for ever)."""

    channel: str
    info: Raw = NO_JSON
    data: Raw = NO_JSON
    binary_data: bytes = b""
    """The data, where it is not JSON on one line. Nodes send each other base64 of it."""
    expire_at: float = 0
    since: Position | None = None
    override: Override | None = None


class ServerUnsubscribe(Struct, frozen=True, omit_defaults=True, tag=True):
    """End a subscription; without a channel, all of them."""

    channel: str = ""
    why: Unsubscribed = SERVER_UNSUBSCRIBE


class ServerDisconnect(Struct, frozen=True, omit_defaults=True, tag=True):
    """Close this connection."""

    why: Disconnect


class ServerRefresh(Struct, frozen=True, omit_defaults=True, tag=True):
    """Move this connection's expiry to unix second `expire_at` (0: never), or expire it at once.

    `info` replaces its conn_info.
    """

    is_expired: bool = False
    expire_at: float = 0
    info: Raw = NO_JSON


ServerEvent = ServerSubscribe | ServerUnsubscribe | ServerDisconnect | ServerRefresh
Event = (
    Received
    | ConnectionLost
    | DeadlineReached
    | Turn
    | SubscriptionsOpened
    | SubscriptionsFailed
    | ConnectionReserved
    | ConnectionRefused
    | Executed
    | Authorized
    | ChannelReset
    | TokensRevoked
    | ServerEvent
)


# -------------------------------------------------------------------------------------------------- effects


class Send(Struct, frozen=True):
    """Write a message to the client, after everything sent before."""

    message: ServerMessage


class Close(Struct, frozen=True):
    """Write what is queued, then close the connection with this code. The session is over."""

    why: Disconnect


class Identify(Struct, frozen=True):
    """The connection belongs to this user from now on."""

    user: str


class ReserveConnection(Struct, frozen=True):
    """Count this connection among those of its user on all nodes, if the user may have it.

    Answered by ConnectionReserved or ConnectionRefused. The count ends when the session does.
    """

    user: str


class HistoryRead(Struct, frozen=True):
    """What to read of a channel's history: its top, and what follows `since` or only the newest publication.

    At most `limit` publications; `is_latest` reads the newest, for a client whose position is `since`.
    """

    since: Position | None = None
    limit: int = 0
    is_latest: bool = False


class SubscriptionPlan(Struct, frozen=True):
    """What it takes to set up one subscription.

    That is a presence entry for `info` if the channel has presence, and the history that `read` names.
    """

    channel: str
    options: ChannelOptions
    info: ClientInfo
    read: HistoryRead | None = None


class OpenSubscriptions(Struct, frozen=True):
    """Subscribe to these channels, holding what is received until the subscription goes live.

    Answered, for all channels together, by SubscriptionsOpened or SubscriptionsFailed.
    """

    plans: Sequence[SubscriptionPlan]


class GoLive(Struct, frozen=True):
    """Deliver everything after offset `start`; up to there the client has everything.

    With `catches_up`, what follows `start` is read from history in pages, up to the channel's position.
    """

    channel: str
    start: int = 0
    receives_joins: bool = False
    catches_up: bool = False
    form: Form = PLAIN


class PublishJoin(Struct, frozen=True):
    """Publish to a channel that this connection joined."""

    channel: str
    info: ClientInfo


class CloseSubscription(Struct, frozen=True):
    """Stop delivering a channel, remove the presence entry, and publish the leave if a join was published."""

    channel: str
    options: ChannelOptions
    info: ClientInfo
    was_announced: bool = False


EngineRequest = (
    messages.PublishRequest
    | messages.PresenceRequest
    | messages.PresenceStatsRequest
    | messages.HistoryRequest
    | messages.RpcRequest
)


class Execute(Struct, frozen=True):
    """Execute a permitted command on behalf of `info`. Answered by Executed."""

    id: int
    request: EngineRequest
    info: ClientInfo
    skip_history: bool = False
    """Of a publish command: the publication is not kept in the history."""


class Authorize(Struct, frozen=True):
    """Ask outside the session whether a request is allowed. Answered by Authorized with the same id.

    A negative id is a question of the session itself, before the connection or a subscription expires.
    `info` is the connection as it is known so far; before the connect reply it has no user.
    """

    id: int
    request: messages.Request
    info: ClientInfo


Effect = (
    Send
    | Close
    | Identify
    | ReserveConnection
    | OpenSubscriptions
    | GoLive
    | PublishJoin
    | CloseSubscription
    | Execute
    | Authorize
)
