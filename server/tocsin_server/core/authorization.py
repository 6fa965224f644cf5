"""Decides connect, subscribe and refresh requests, without changing anything.

Each decision is a value: what is granted, or the `Refusal` (an error reply) or `Disconnect` (a close)
that the protocol names. Where an answer came from outside (`Approval`), its claims take the place of the
token's.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

from msgspec import Raw, Struct, structs

from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.config.limit_options import LimitOptions
from tocsin_server.core import permissions
from tocsin_server.core.capabilities import Action, Capabilities, actions, capabilities
from tocsin_server.core.channel_names import ChannelRules, Kind, personal_channel
from tocsin_server.core.client_limits import ClientLimits
from tocsin_server.core.events import Approval, ServerSubscribe, Timestamp
from tocsin_server.core.form import PLAIN, WITH_DELTA, Form
from tocsin_server.core.permissions import Caller, overridden
from tocsin_server.core.revocations import Revocations
from tocsin_server.core.subscription import Subscription, SubscriptionTerms, monotonic_deadline
from tocsin_server.core.tags_filter import TagsFilters
from tocsin_server.core.tokens import (
    ConnectionClaims,
    ExpiringGrant,
    KeysUnavailable,
    MappedClaims,
    StandardClaims,
    SubscriptionClaims,
    SubscriptionGrant,
    TokenExpired,
    TokenInvalid,
    TokenNotYetValid,
    TokenVerifier,
    embedded,
    embedded_data,
)
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.canonical import is_set
from tocsin_server.protocol.messages import (
    NO_JSON,
    ClientInfo,
    ConnectRequest,
    Position,
    Request,
    SubscribeRequest,
    SubscriptionPosition,
)
from tocsin_server.protocol.payloads import Binary, Payload

REVOKED = "it was revoked"

NOTHING_ALLOWED: frozenset[Action] = frozenset()


def _no_connections(_user: str) -> int:
    return 0


def _ignore(_client: str, _subject: str, _reason: str) -> None:
    pass


def _ignore_limit(_client: str, _limit: str) -> None:
    pass


def _no_subscribers(_channel: str) -> int:
    return 0


def _needs_no_authorization(_request: Request) -> bool:
    return False


TURN_COST = 48
"""What the commands of one turn may cost together; a cheap command costs 1, about 5 µs.

One turn may exceed it by its last command.
"""


@dataclass(frozen=True, slots=True)
class SessionContext:
    """What all sessions of a node share. They only read it, apart from what they use of `limits`."""

    options: ClientOptions
    rules: ChannelRules
    tokens: TokenVerifier
    node: str
    version: str
    connections_of: Callable[[str], int] = _no_connections
    """Returns how many connections a user has on this node."""
    report_refusal: Callable[[str, str, str], None] = _ignore
    """Called with a client id, what was refused, and why: for the operator, not for the client."""
    report_limit: Callable[[str, str], None] = _ignore_limit
    """Called with a client id and the key of a limit that refused the client something."""
    subscribers_in: Callable[[str], int] = _no_subscribers
    """Returns how many subscribers a channel has on this node, those being set up included."""
    limits: ClientLimits = field(default_factory=lambda: ClientLimits(ClientOptions(), LimitOptions()))
    """What clients may use per second."""
    rpc_methods: Container[str] = frozenset()
    needs_authorization: Callable[[Request], bool] = _needs_no_authorization
    """Whether a request waits for an answer from outside the session. Called once per command."""
    authorization_seconds: float = 5.0
    """How long such an answer may take."""
    revocations: Revocations = field(default_factory=Revocations)
    """Which tokens are invalid although they have not expired. Only the node changes it."""
    tags_filters: TagsFilters = field(default_factory=TagsFilters)
    """The filters that subscriptions have requested."""
    turn_cost: int = TURN_COST
    """What the commands of one turn may cost."""


class AuthorizedConnection(Struct, frozen=True):
    """What a connect command is granted."""

    info: ClientInfo
    expires_at: float | None
    """Monotonic seconds; None for never."""
    granted: frozenset[str]
    """The server-side channels that its token grants."""
    capabilities: Capabilities | None
    """What its token grants in channels that match a pattern."""
    subscriptions: Mapping[str, Subscription]
    """All its server-side subscriptions, by channel."""
    token_id: str = ""
    issued_at: float | None = None
    """When its token was issued, in unix seconds; None if it has none."""


# ---------------------------------------------------------------------------------------------- connections


def authorize_connection(
    context: SessionContext,
    client: str,
    request: ConnectRequest,
    now: Timestamp,
    claims: ConnectionClaims | None = None,
) -> AuthorizedConnection | Refusal | Disconnect:
    """Decide a connect command (protocol §3), by `claims` if they are given, else by its token."""
    options = context.options
    if len(request.subs) > options.channel_limit:  # before each of them is looked at
        return _too_many_channels(context, client)
    found = connection_claims(context, client, request.token, now, claims)
    if isinstance(found, Refusal | Disconnect):
        return found
    limit = options.user_connection_limit
    if limit and found.sub and context.connections_of(found.sub) >= limit:
        context.report_refusal(
            client, "connect", f"the user has client.user_connection_limit ({limit}) connections"
        )
        context.report_limit(client, "client.user_connection_limit")
        return errors.too_many_connections(limit)
    expires_at = None if options.insecure else monotonic_deadline(found.expires_at, now)
    if expires_at is not None and expires_at + context.tokens.leeway_for(found) <= now.monotonic:
        context.report_refusal(client, "connection token", "its expire_at has passed")
        return errors.EXPIRED
    info = ClientInfo(found.sub, client, embedded(found.info, found.b64info))
    subscriptions = _server_side_subscriptions(context, info, found, request.subs, now)
    if isinstance(subscriptions, Refusal | Disconnect):
        return subscriptions
    if len(subscriptions) > options.channel_limit:
        return _too_many_channels(context, client)
    return AuthorizedConnection(
        info,
        expires_at,
        frozenset(found.grants),
        capabilities(found.caps),
        subscriptions,
        found.jti,
        issued_at(found) if request.token or claims is not None else None,
    )


def connection_claims_of(approval: Approval | None) -> ConnectionClaims | None:
    """Return the claims that an approval gives a connection."""
    claims = None if approval is None else approval.claims
    return claims if isinstance(claims, ConnectionClaims) else None


def subscription_claims_of(approval: Approval | None) -> SubscriptionClaims | None:
    """Return the claims that an approval gives a subscription."""
    claims = None if approval is None else approval.claims
    return claims if isinstance(claims, SubscriptionClaims) else None


def issued_at(claims: StandardClaims) -> float:
    """Return when a token was issued, in unix seconds. One that does not say counts as the oldest."""
    return claims.iat if claims.iat is not None else 0.0


def _too_many_channels(context: SessionContext, client: str) -> Disconnect:
    limit = context.options.channel_limit
    context.report_limit(client, "client.channel_limit")
    context.report_refusal(client, "connect", f"more than client.channel_limit ({limit}) channels")
    return errors.CHANNEL_LIMIT


def connection_claims(
    context: SessionContext,
    client: str,
    token: str,
    now: Timestamp,
    claims: ConnectionClaims | None = None,
) -> ConnectionClaims | Refusal | Disconnect:
    """Return the `claims` that are given, or a connection token's, if they are not revoked.

    Without a token they are an anonymous user's, if that is allowed.
    """
    found = _token_claims(context, client, token, now) if claims is None else claims
    if isinstance(found, Refusal | Disconnect) or (claims is None and not token):
        return found
    if context.revocations.covers(found.jti, found.sub, issued_at(found), now.unix):
        context.report_refusal(client, "connection token", REVOKED)
        return errors.because(errors.TOKEN_EXPIRED, REVOKED)
    return found


def _token_claims(
    context: SessionContext, client: str, token: str, now: Timestamp
) -> ConnectionClaims | Refusal | Disconnect:
    if not token:
        is_open = context.options.insecure or context.options.allow_anonymous
        if is_open:
            return ConnectionClaims()
        context.report_refusal(client, "connect", "there is no token, and client.allow_anonymous is false")
        return errors.PROTOCOL_VIOLATION
    try:
        claims = context.tokens.connection(token, now.unix)
        embedded(claims.info, claims.b64info)
        for grant in claims.grants.values():
            embedded(grant.info, grant.b64info)
            embedded_data(grant.data, grant.b64data)
    except TokenInvalid as error:
        context.report_refusal(client, "connection token", str(error))
        return errors.INVALID_TOKEN
    except TokenExpired as error:
        context.report_refusal(client, "connection token", str(error))
        return _expired(error)
    except KeysUnavailable as error:
        context.report_refusal(client, "connection token", str(error))
        return errors.SERVER_ERROR
    if isinstance(claims, MappedClaims) and claims.incomplete:
        reason = f"a value cannot be part of a channel's name, in {', '.join(claims.incomplete)}"
        context.report_refusal(client, "channels of the connection token", reason)
    return claims


def _server_side_subscriptions(
    context: SessionContext,
    info: ClientInfo,
    claims: ConnectionClaims,
    positions: Mapping[str, SubscriptionPosition],
    now: Timestamp,
) -> dict[str, Subscription] | Refusal | Disconnect:
    """Build the subscriptions to the token's channels, the personal one, and those the client had (§3)."""
    granted = _granted_channels(context, info.client, claims)
    if isinstance(granted, Refusal):
        return granted
    if not granted and not positions:
        return {}
    return _built_subscriptions(context, info, claims, granted, positions, now)


def _built_subscriptions(
    context: SessionContext,
    info: ClientInfo,
    claims: ConnectionClaims,
    granted: Mapping[str, ChannelOptions],
    positions: Mapping[str, SubscriptionPosition],
    now: Timestamp,
) -> dict[str, Subscription] | Disconnect:
    found: dict[str, Subscription] = {}
    caller = caller_of(context, info.user, capabilities(claims.caps))

    def add(channel: str, options: ChannelOptions, channel_info: ClientInfo, data: Payload = NO_JSON) -> None:
        position = positions.get(channel, SubscriptionPosition())
        since = Position(position.offset, position.epoch) if position.recover else None
        found[channel] = _server_side(caller, channel, options, channel_info, since, data)

    grants = claims.grants
    for channel, options in granted.items():
        grant = grants.get(channel, SubscriptionGrant())
        channel_info = with_channel_info(info, embedded(grant.info, grant.b64info))
        add(
            channel,
            overridden(options, grant.override),
            channel_info,
            embedded_data(grant.data, grant.b64data),
        )
        if isinstance(grant, ExpiringGrant):
            _apply_grant(found[channel], grant, now)
    for channel in positions:
        checked = permissions.check_name(channel, context.rules)
        if not channel or checked is errors.UNKNOWN_CHANNEL:
            return errors.PROTOCOL_VIOLATION
        if isinstance(checked, Refusal) or channel in found:
            continue
        if context.needs_authorization(SubscribeRequest(channel)):
            continue  # only an answer to the connect or a subscribe command may grant it
        if may_subscribe(context, caller, channel, checked) is None:
            add(channel, checked, info)
            found[channel].is_by_capability = _is_by_capability(context, caller, channel, checked)
    return found


def _apply_grant(subscription: Subscription, grant: ExpiringGrant, now: Timestamp) -> None:
    """Apply what only hooks grant."""
    subscription.data = grant.payload or subscription.data
    subscription.expires_at = monotonic_deadline(grant.expire_at, now)
    subscription.allowed = actions(grant.allow)
    subscription.is_refreshed_by_client = False


def _granted_channels(
    context: SessionContext, client: str, claims: ConnectionClaims
) -> dict[str, ChannelOptions] | Refusal:
    """Return the options of the token's channels and of the personal one, or why a name is not valid."""
    found: dict[str, ChannelOptions] = {}
    for channel in claims.grants:
        checked = permissions.check_name(channel, context.rules)
        if isinstance(checked, Refusal):
            context.report_refusal(client, "connection token", f"{checked.message}: {channel[:100]}")
            return checked
        found[channel] = checked
    if context.options.personal_channel and claims.sub:
        channel = personal_channel(claims.sub, context.options.personal_channel_namespace)
        checked = permissions.check_name(channel, context.rules)
        if isinstance(checked, Refusal):
            checked = errors.because(checked, "it is the user's personal channel")
            context.report_refusal(client, "connect", f"{checked.message}: {channel[:100]}")
            return checked
        found.setdefault(channel, checked)
    return found


# -------------------------------------------------------------------------------------------- subscriptions


def authorize_subscription(
    context: SessionContext,
    info: ClientInfo,
    granted: Capabilities | None,
    existing: Mapping[str, Subscription],
    request: SubscribeRequest,
    now: Timestamp,
    claims: SubscriptionClaims | None = None,
) -> Subscription | Refusal | Disconnect:
    """Decide a subscribe command, by `claims` if they are given, else by its token or the channel's options.

    `granted` are the connection's capabilities, `existing` its subscriptions so far. The checks are in the
    protocol's order (§4).
    """
    options = check_subscribe_request(context, info, existing, request)
    if isinstance(options, Refusal | Disconnect):
        return options
    form = _form_of(context, options, request)
    if isinstance(form, Refusal):
        return form
    grant = SubscriptionTerms(info)
    caller = caller_of(context, info.user, granted)
    is_by_capability = False
    if claims is not None or request.token:
        decided = authorize_by_claims(context, info, request.channel, request.token, now, claims)
        if not isinstance(decided, SubscriptionTerms):
            return decided
        grant = decided
    else:
        refusal = may_subscribe(context, caller, request.channel, options)
        is_by_capability = _is_by_capability(context, caller, request.channel, options)
        if refusal is not None:
            reason = f"{refusal.message}, and no subscription token: {request.channel[:100]}"
            context.report_refusal(info.client, "subscribe", reason)
            return refusal
    options = overridden(options, grant.override)
    is_recovering = request.recover or options.auto_cache_recover
    since = Position(request.offset, request.epoch) if is_recovering else None
    subscriber = structs.replace(caller, allowed=grant.allowed) if grant.allowed else caller
    is_recoverable, is_positioned, receives_joins = _features(subscriber, options, request, since)
    return Subscription(
        request.channel,
        options,
        grant.info,
        since=since,
        refuses_unrecovered=request.refuses_unrecovered,
        expires_at=grant.expires_at,
        data=grant.data,
        is_recoverable=is_recoverable,
        is_positioned=is_positioned,
        receives_joins=receives_joins,
        form=form,
        token_id=grant.token_id,
        issued_at=grant.issued_at,
        allowed=grant.allowed,
        is_refreshed_by_client=claims is None,
        is_by_capability=is_by_capability,
    )


def may_subscribe(
    context: SessionContext, caller: Caller, channel: str, options: ChannelOptions
) -> Refusal | None:
    """Return why a client may not subscribe to a channel without a subscription token; None if it may."""
    kind = context.rules.kind_of(channel, options)
    return permissions.decide(Action.SUBSCRIBE, caller, channel, options, kind)


def _is_by_capability(context: SessionContext, caller: Caller, channel: str, options: ChannelOptions) -> bool:
    """Whether a client would be refused without its capabilities."""
    if caller.capabilities is None:
        return False
    return may_subscribe(context, structs.replace(caller, capabilities=None), channel, options) is not None


def check_subscribe_request(
    context: SessionContext, info: ClientInfo, existing: Mapping[str, Subscription], request: SubscribeRequest
) -> ChannelOptions | Refusal | Disconnect:
    """Return the channel's options, if the request is valid for any user."""
    channel = request.channel
    if not channel:
        return errors.PROTOCOL_VIOLATION
    options = permissions.check_name(channel, context.rules)
    if isinstance(options, Refusal) and context.rules.is_too_long(channel):
        return options
    if channel in existing:
        return errors.ALREADY_SUBSCRIBED
    if len(existing) >= context.options.channel_limit:
        context.report_limit(info.client, "client.channel_limit")
        return errors.LIMIT_EXCEEDED
    if isinstance(options, Refusal):
        return options
    if request.type:
        return errors.NOT_AVAILABLE
    if is_set(request.tf) and not options.allow_tags_filter:
        return errors.bad_request("the channel allows no tags filter")
    return options


def _form_of(context: SessionContext, options: ChannelOptions, request: SubscribeRequest) -> Form | Refusal:
    """Decide in which form a client gets publications. With a filter it is not granted deltas."""
    if is_set(request.tf):
        try:
            return Form(tags_filter=context.tags_filters.parse(request.tf))
        except ValueError as error:
            return errors.bad_request(f"the tags filter is not valid: {error}")
    return WITH_DELTA if request.delta and request.delta in options.allowed_delta_types else PLAIN


def authorize_by_claims(
    context: SessionContext,
    info: ClientInfo,
    channel: str,
    token: str,
    now: Timestamp,
    claims: SubscriptionClaims | None = None,
) -> SubscriptionTerms | Refusal | Disconnect:
    """Decide what a subscription token grants in `channel`; `claims`, if given, replace the token's."""
    found = _subscription_claims(context, info, channel, token, now) if claims is None else claims
    if isinstance(found, Refusal | Disconnect):
        return found
    was_issued_at = issued_at(found)
    if context.revocations.covers(found.jti, info.user, was_issued_at, now.unix, channel):
        context.report_refusal(info.client, "subscription token", REVOKED)
        return errors.because(errors.TOKEN_EXPIRED, REVOKED)
    expires_at = None if context.options.insecure else monotonic_deadline(found.expires_at, now)
    if expires_at is not None and expires_at + context.tokens.leeway_for(found) <= now.monotonic:
        context.report_refusal(info.client, "subscription token", "its expire_at has passed")
        return errors.EXPIRED
    channel_info = with_channel_info(info, embedded(found.info, found.b64info))
    data = embedded(found.data, "")
    return SubscriptionTerms(
        channel_info,
        data,
        expires_at,
        found.override,
        actions(found.allow),
        found.jti,
        was_issued_at,
    )


def _subscription_claims(
    context: SessionContext, info: ClientInfo, channel: str, token: str, now: Timestamp
) -> SubscriptionClaims | Refusal | Disconnect:
    """Return a subscription token's claims.

    An invalid token is an error; a valid one of another user, client or channel is a close (protocol §12).
    """
    try:
        claims = context.tokens.subscription(token, now.unix)
        embedded(claims.info, claims.b64info)
    except TokenInvalid as error:
        context.report_refusal(info.client, "subscription token", str(error))
        return errors.PERMISSION_DENIED
    except TokenExpired as error:
        context.report_refusal(info.client, "subscription token", str(error))
        return _expired(error)
    except KeysUnavailable as error:
        context.report_refusal(info.client, "subscription token", str(error))
        return errors.INTERNAL_ERROR
    if other := _mismatch(claims, info, channel):
        context.report_refusal(info.client, "subscription token", f"it is for another {other}")
        return errors.INVALID_TOKEN
    return claims


def _mismatch(claims: SubscriptionClaims, info: ClientInfo, channel: str) -> str:
    """What a subscription token names that is not the connection's; empty if all of it is."""
    if claims.channel != channel:
        return "channel"
    if claims.sub != info.user:
        return "user"
    return "" if claims.client in ("", info.client) else "client"


def server_side_subscription(
    context: SessionContext,
    info: ClientInfo,
    granted: Capabilities | None,
    event: ServerSubscribe,
    now: Timestamp,
) -> Subscription | None:
    """Return the subscription that an API call makes, or None if its namespace is unknown."""
    options = context.rules.options_for(event.channel)
    if options is None:
        return None
    channel_info = with_channel_info(info, event.info)
    subscription = _server_side(
        caller_of(context, info.user, granted),
        event.channel,
        overridden(options, event.override),
        channel_info,
        event.since,
        Binary(event.binary_data) if event.binary_data else event.data,
    )
    subscription.expires_at = monotonic_deadline(event.expire_at, now)
    return subscription


def _server_side(
    caller: Caller,
    channel: str,
    options: ChannelOptions,
    info: ClientInfo,
    since: Position | None,
    data: Payload,
) -> Subscription:
    is_recoverable, is_positioned, receives_joins = _features(
        caller, options, SubscribeRequest(channel), since
    )
    return Subscription(
        channel,
        options,
        info,
        is_server_side=True,
        since=since,
        data=data,
        is_recoverable=is_recoverable,
        is_positioned=is_positioned,
        receives_joins=receives_joins,
    )


def with_channel_info(info: ClientInfo, channel_info: Raw) -> ClientInfo:
    """Return a connection's info as one channel shows it."""
    return ClientInfo(info.user, info.client, info.conn_info, channel_info) if channel_info else info


def _expired(error: TokenExpired) -> Refusal:
    is_early = isinstance(error, TokenNotYetValid)
    return errors.because(errors.TOKEN_EXPIRED, "it is not valid yet") if is_early else errors.TOKEN_EXPIRED


def caller_of(
    context: SessionContext,
    user: str,
    granted: Capabilities | None,
    subscription: Subscription | None = None,
) -> Caller:
    """Return what counts for decisions about one channel, in which the user has this live subscription."""
    is_subscribed = subscription is not None
    allowed = subscription.allowed if subscription is not None else NOTHING_ALLOWED
    return Caller(user, context.options.insecure, granted, is_subscribed, allowed)


def _features(
    caller: Caller, options: ChannelOptions, request: SubscribeRequest, since: Position | None
) -> tuple[bool, bool, bool]:
    """Decide recovery, positions and join pushes: forced by the channel, or requested and allowed (§4).

    Returns whether the subscription is recoverable, is positioned, and receives joins.
    """

    def may(action: Action) -> bool:  # of a subscriber, so the channel's kind does not matter
        subscriber = structs.replace(caller, is_subscribed=True)
        return permissions.decide(action, subscriber, request.channel, options, Kind.PLAIN) is None

    wants_recovery = request.recoverable or since is not None
    is_recoverable = options.force_recovery or (
        wants_recovery and (options.allow_recovery or may(Action.HISTORY))
    )
    is_positioned = options.force_positioning or (
        request.positioned and (options.allow_positioning or may(Action.HISTORY))
    )
    wants_joins = options.force_push_join_leave or (request.join_leave and may(Action.PRESENCE))
    return (
        options.keeps_history and is_recoverable,
        options.keeps_history and (is_recoverable or is_positioned),
        options.join_leave and wants_joins,
    )
