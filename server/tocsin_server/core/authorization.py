"""Who is let in, and with what: decides connect, subscribe and refresh requests without changing anything.

Each decision is a value: what is granted, or the `Refusal` (an error reply) or `Disconnect` (a close) that
the protocol names.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass

from msgspec import Raw

from tocsin_server import errors
from tocsin_server.config.options import ClientOptions
from tocsin_server.core import permissions
from tocsin_server.core.channel_names import ChannelRules, personal_channel
from tocsin_server.core.events import ServerSubscribe, Timestamp
from tocsin_server.core.permissions import Caller, overridden
from tocsin_server.core.subscription import Subscription, monotonic_deadline
from tocsin_server.core.tokens import (
    ConnectionClaims,
    SubscriptionClaims,
    TokenExpired,
    TokenInvalid,
    TokenVerifier,
    embedded,
)
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import (
    ClientInfo,
    ConnectRequest,
    Position,
    SubscribeRequest,
    SubscriptionPosition,
)


def _no_connections(_user: str) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What every session of a node shares and only reads."""

    options: ClientOptions
    rules: ChannelRules
    tokens: TokenVerifier
    node: str
    version: str
    connections_of: Callable[[str], int] = _no_connections
    """How many connections a user has on this node."""
    rpc_methods: Container[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AuthorizedConnection:
    """A connection that is let in."""

    info: ClientInfo
    expires_at: float | None
    """Monotonic seconds; None for never."""
    granted: frozenset[str]
    """Server-side channels its token grants."""
    subscriptions: Mapping[str, Subscription]
    """Everything it is subscribed to from the server's side."""


def authorize_connection(
    house: SessionContext, client: str, request: ConnectRequest, now: Timestamp
) -> AuthorizedConnection | Refusal | Disconnect:
    """Decide a connect command (protocol §3)."""
    claims = connection_claims(house, request.token, now)
    if isinstance(claims, Refusal | Disconnect):
        return claims
    options = house.options
    if (
        options.user_connection_limit
        and claims.sub
        and house.connections_of(claims.sub) >= options.user_connection_limit
    ):
        return errors.CONNECTION_LIMIT
    expires_at = None if options.insecure else monotonic_deadline(claims.expires_at, now)
    if expires_at is not None and expires_at <= now.monotonic:
        return errors.EXPIRED
    info = ClientInfo(claims.sub, client, embedded(claims.info, claims.b64info))
    subscriptions = _server_side(house, info, claims, request.subs)
    if isinstance(subscriptions, Refusal | Disconnect):
        return subscriptions
    if len(subscriptions) > options.channel_limit:
        return errors.CHANNEL_LIMIT
    return AuthorizedConnection(info, expires_at, frozenset(claims.grants), subscriptions)


def connection_claims(
    house: SessionContext, token: str, now: Timestamp
) -> ConnectionClaims | Refusal | Disconnect:
    """What a connection token says, or an anonymous user's claims where there is none and that is allowed."""
    if not token:
        is_open = house.options.insecure or house.options.allow_anonymous
        return ConnectionClaims() if is_open else errors.PROTOCOL_VIOLATION
    try:
        claims = house.tokens.connection(token, now.unix)
        embedded(claims.info, claims.b64info)
        for grant in claims.grants.values():
            embedded(grant.info, grant.b64info)
            embedded(grant.data, grant.b64data)
    except TokenInvalid:
        return errors.INVALID_TOKEN
    except TokenExpired:
        return errors.TOKEN_EXPIRED
    return claims


def subscription_claims(
    house: SessionContext, info: ClientInfo, channel: str, token: str, now: Timestamp
) -> SubscriptionClaims | Refusal | Disconnect:
    """What a subscription token says: a bad one is an error, somebody else's is a close (protocol §12)."""
    try:
        claims = house.tokens.subscription(token, now.unix)
        embedded(claims.info, claims.b64info)
    except TokenInvalid:
        return errors.PERMISSION_DENIED
    except TokenExpired:
        return errors.TOKEN_EXPIRED
    is_ours = claims.channel == channel and claims.sub == info.user and claims.client in ("", info.client)
    return claims if is_ours else errors.INVALID_TOKEN


def authorize_subscription(
    house: SessionContext,
    info: ClientInfo,
    taken: Mapping[str, Subscription],
    request: SubscribeRequest,
    now: Timestamp,
) -> Subscription | Refusal | Disconnect:
    """Decide a subscribe command; `taken` are the connection's subscriptions so far.

    Checks in the protocol's order (§4).
    """
    channel = request.channel
    if not channel:
        return errors.PROTOCOL_VIOLATION
    if house.rules.is_too_long(channel):
        return errors.BAD_REQUEST
    if channel in taken:
        return errors.ALREADY_SUBSCRIBED
    if len(taken) >= house.options.channel_limit:
        return errors.LIMIT_EXCEEDED
    options = permissions.check_name(channel, house.rules)
    if isinstance(options, Refusal):
        return options
    if request.type:
        return errors.NOT_AVAILABLE
    if request.tf:
        return errors.BAD_REQUEST
    subscription = Subscription(channel, options, info, refuses_unrecovered=request.refuses_unrecovered)
    if request.token:
        verdict = apply_token(house, info, subscription, request.token, now)
    else:
        verdict = permissions.may_subscribe(_caller(house, info), channel, options)
    if verdict is not None:
        return verdict
    is_recovering = request.recover or subscription.options.auto_cache_recover
    since = Position(request.offset, request.epoch) if is_recovering else None
    _grant_features(house, subscription, request, since)
    return subscription


def server_side_subscription(
    house: SessionContext, info: ClientInfo, event: ServerSubscribe, now: Timestamp
) -> Subscription | None:
    """The subscription an API call makes, or None if its namespace is unknown."""
    options = house.rules.options_for(event.channel)
    if options is None:
        return None
    subscription = Subscription(
        event.channel,
        overridden(options, event.override),
        with_chan_info(info, event.info),
        is_server_side=True,
        data=event.data,
        expires_at=monotonic_deadline(event.expire_at, now),
    )
    _grant_features(house, subscription, SubscribeRequest(), event.since)
    return subscription


def apply_token(
    house: SessionContext, info: ClientInfo, subscription: Subscription, token: str, now: Timestamp
) -> Refusal | Disconnect | None:
    """Let a subscription token decide what a subscription is and until when; None if it is good.

    A live one keeps its options, since it has to be left as it was entered.
    """
    claims = subscription_claims(house, info, subscription.channel, token, now)
    if isinstance(claims, Refusal | Disconnect):
        return claims
    expires_at = None if house.options.insecure else monotonic_deadline(claims.expires_at, now)
    if expires_at is not None and expires_at <= now.monotonic:
        return errors.EXPIRED
    subscription.expires_at = expires_at
    subscription.info = with_chan_info(info, embedded(claims.info, claims.b64info))
    subscription.data = embedded(claims.data, "")
    if not subscription.is_live:
        subscription.options = overridden(subscription.options, claims.override)
    return None


def with_chan_info(info: ClientInfo, chan_info: Raw) -> ClientInfo:
    """A connection's info as one channel sees it."""
    return ClientInfo(info.user, info.client, info.conn_info, chan_info) if chan_info else info


def _caller(house: SessionContext, info: ClientInfo) -> Caller:
    return Caller(info.user, house.options.insecure)


def _server_side(
    house: SessionContext,
    info: ClientInfo,
    claims: ConnectionClaims,
    positions: Mapping[str, SubscriptionPosition],
) -> dict[str, Subscription] | Refusal | Disconnect:
    """The token's channels, the personal one, and those the client had and may still have (protocol §3)."""
    found: dict[str, Subscription] = {}
    for channel, grant in claims.grants.items():
        options = house.rules.options_for(channel)
        if options is None:
            return errors.UNKNOWN_CHANNEL
        chan_info = with_chan_info(info, embedded(grant.info, grant.b64info))
        data = embedded(grant.data, grant.b64data)
        found[channel] = Subscription(channel, overridden(options, grant.override), chan_info, data=data)
    if house.options.personal_channel and claims.sub:
        _add(house, info, found, personal_channel(claims.sub, house.options.personal_channel_namespace))
    for channel in positions:
        name = permissions.check_name(channel, house.rules)
        if not channel or name is errors.UNKNOWN_CHANNEL:
            return errors.PROTOCOL_VIOLATION
        if isinstance(name, Refusal):
            continue
        if permissions.may_subscribe(_caller(house, info), channel, name) is None:
            _add(house, info, found, channel)
    for channel, subscription in found.items():
        subscription.is_server_side = True
        position = positions.get(channel, SubscriptionPosition())
        since = Position(position.offset, position.epoch) if position.recover else None
        _grant_features(house, subscription, SubscribeRequest(), since)
    return found


def _add(house: SessionContext, info: ClientInfo, found: dict[str, Subscription], channel: str) -> None:
    options = house.rules.options_for(channel)
    if options is not None and channel not in found:
        found[channel] = Subscription(channel, options, info)


def _grant_features(
    house: SessionContext, subscription: Subscription, asked: SubscribeRequest, since: Position | None
) -> None:
    """Positions, recovery, join pushes: forced by the channel, or asked for and allowed (protocol §4)."""
    options = subscription.options
    caller = _caller(house, subscription.info)
    may_read = permissions.may_read_history(caller, options, is_subscribed=True) is None
    wants_recovery = asked.recoverable or since is not None
    is_recoverable = options.force_recovery or (wants_recovery and (options.allow_recovery or may_read))
    is_positioned = options.force_positioning or (
        asked.positioned and (options.allow_positioning or may_read)
    )
    subscription.is_recoverable = options.keeps_history and is_recoverable
    subscription.is_positioned = options.keeps_history and (is_recoverable or is_positioned)
    subscription.since = since
    may_see = permissions.may_read_presence(caller, options, is_subscribed=True) is None
    is_asked = options.force_push_join_leave or (asked.join_leave and may_see)
    subscription.receives_joins = options.join_leave and is_asked
