"""What may happen to a session, and what it may ask for in return.

Events go in, effects come out; neither does anything by itself. A session never waits: where it needs the
engine it emits `Enter` or `Ask`, and the answer arrives later as `Entered`, `EnterFailed` or `Answered`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import Raw, Struct

from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.core.tokens import Override
from tocsin_server.errors import SERVER_UNSUBSCRIBE, Disconnect, Refusal, Unsubscribed
from tocsin_server.protocol import messages
from tocsin_server.protocol.messages import NO_JSON, ClientInfo, Position, ServerMessage


class Timestamp(NamedTuple):
    """A moment on both clocks: `monotonic` seconds for time-outs, `unix` seconds for what tokens say."""

    monotonic: float
    unix: float


# -------------------------------------------------------------------------------------- events: from the peer


@dataclass(frozen=True, slots=True)
class Received:
    """The client sent commands, or its transport issued them for a client that cannot send any.

    They are taken one at a time, so a lazy iterable is decoded only as far as the session reads it.
    """

    commands: Iterable[messages.Command | messages.Malformed]


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """The connection is gone. No effect can reach the peer any more."""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The session's deadline has come."""


# ------------------------------------------------------------------------------------ events: from the engine


@dataclass(frozen=True, slots=True)
class SubscriptionsOpened:
    """An `Enter` succeeded.

    Each history is what was read, merged with what was heard meanwhile; None where nothing was to be read.

    The session must be told in the same step in which they are merged: from here on, `Open` makes the peer
    hear live.
    """

    histories: Mapping[str, History | None]


@dataclass(frozen=True, slots=True)
class SubscriptionsFailed:
    """An `Enter` failed in the engine, for all its channels."""

    channels: Sequence[str]


@dataclass(frozen=True, slots=True)
class Executed:
    """The answer to an `Ask`."""

    id: int
    outcome: Struct | Refusal


@dataclass(frozen=True, slots=True)
class ChannelReset:
    """A channel's log was trimmed or replaced: what comes no longer continues what the peer was told."""

    channel: str


# -------------------------------------------------------------------------------- events: from the server API
# These travel between nodes, so they are wire types.


class ServerSubscribe(Struct, frozen=True, omit_defaults=True, tag=True):
    """Subscribe this connection from the server's side, until unix second `expire_at` (0: for ever)."""

    channel: str
    info: Raw = NO_JSON
    data: Raw = NO_JSON
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


Event = (
    Received
    | ConnectionLost
    | DeadlineReached
    | SubscriptionsOpened
    | SubscriptionsFailed
    | Executed
    | ChannelReset
    | ServerSubscribe
    | ServerUnsubscribe
    | ServerDisconnect
    | ServerRefresh
)
ServerEvent = ServerSubscribe | ServerUnsubscribe | ServerDisconnect | ServerRefresh


# ---------------------------------------------------------------------------------------------------- effects


@dataclass(frozen=True, slots=True)
class Send:
    """Write a message to the peer, after everything sent before."""

    message: ServerMessage


@dataclass(frozen=True, slots=True)
class Close:
    """Write what waits, then close with this code. The session is over."""

    why: Disconnect


@dataclass(frozen=True, slots=True)
class Identify:
    """The peer is now known as this user."""

    user: str


@dataclass(frozen=True, slots=True)
class HistoryRead:
    """What to read of a log while entering: its top, and what follows `since` or only the newest publication.

    At most `limit` publications.
    """

    since: Position | None = None
    limit: int = 0
    is_latest: bool = False


@dataclass(frozen=True, slots=True)
class SubscriptionPlan:
    """One channel to enter: be present there as `info` if it keeps presence, and read what `read` says."""

    channel: str
    options: ChannelOptions
    info: ClientInfo
    read: HistoryRead | None = None


@dataclass(frozen=True, slots=True)
class OpenSubscriptions:
    """Start to hear these channels, holding what is heard.

    Answered, for all of them together, by Entered or EnterFailed.
    """

    plans: Sequence[SubscriptionPlan]


@dataclass(frozen=True, slots=True)
class GoLive:
    """Hear live what comes after offset `start`, up to which the peer has been told everything."""

    channel: str
    start: int = 0
    receives_joins: bool = False


@dataclass(frozen=True, slots=True)
class PublishJoin:
    """Tell a channel that this connection joined."""

    channel: str
    info: ClientInfo


@dataclass(frozen=True, slots=True)
class CloseSubscription:
    """Stop hearing a channel and being present in it; tell the others if it was announced."""

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


@dataclass(frozen=True, slots=True)
class Execute:
    """Do what a permitted command asks, on behalf of `info`. Answered by Answered."""

    id: int
    request: EngineRequest
    info: ClientInfo


Effect = Send | Close | Identify | OpenSubscriptions | GoLive | PublishJoin | CloseSubscription | Execute
