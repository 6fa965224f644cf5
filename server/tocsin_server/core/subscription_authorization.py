"""Decides subscribe requests and refreshes of subscriptions, without changing anything.

Each decision is a value: what is granted, or the `Refusal` (an error reply) or `Disconnect` (a close)
that the protocol names. Where an answer came from outside (`Approval`), its claims take the place of the
token's.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Raw, structs

from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core import permissions
from tocsin_server.core.capabilities import HISTORY, PRESENCE, SUBSCRIBE, Action, Capabilities, actions
from tocsin_server.core.channel_names import Kind
from tocsin_server.core.events import Approval, ServerSubscribe, Timestamp
from tocsin_server.core.form import PLAIN, WITH_DELTA, Form
from tocsin_server.core.permissions import Caller, overridden
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.subscription import Subscription, SubscriptionTerms, monotonic_deadline
from tocsin_server.core.token_refusals import REVOKED, expired
from tocsin_server.core.tokens import (
    KeysUnavailable,
    SubscriptionClaims,
    TokenExpired,
    TokenInvalid,
    embedded,
    issued_at,
)
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.canonical import is_set
from tocsin_server.protocol.messages import (
    ClientInfo,
    Position,
    SubscribeRequest,
)
from tocsin_server.protocol.payloads import Binary, Payload

NOTHING_ALLOWED: frozenset[Action] = frozenset()


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
    if not isinstance(options, ChannelOptions):
        return options
    form = _form_of(context, options, request)
    if isinstance(form, Refusal):
        return form
    grant = SubscriptionTerms(info)
    caller = caller_of(context, info.user, granted)
    by_capability = False
    if claims is not None or request.token:
        decided = authorize_by_claims(context, info, request.channel, request.token, now, claims)
        if not isinstance(decided, SubscriptionTerms):
            return decided
        grant = decided
    else:
        refusal = may_subscribe(context, caller, request.channel, options)
        if granted is not None:
            by_capability = is_by_capability(context, caller, request.channel, options)
        if refusal is not None:
            reason = f"{refusal.message}, and no subscription token: {request.channel[:100]}"
            context.report_refusal(info.client, "subscribe", reason)
            return refusal
    if grant.override is not None:
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
        is_by_capability=by_capability,
    )


def may_subscribe(
    context: SessionContext, caller: Caller, channel: str, options: ChannelOptions
) -> Refusal | None:
    """Return why a client may not subscribe to a channel without a subscription token; None if it may."""
    kind = context.rules.kind_of(channel, options)
    return permissions.decide(SUBSCRIBE, caller, channel, options, kind)


def is_by_capability(context: SessionContext, caller: Caller, channel: str, options: ChannelOptions) -> bool:
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
    if not isinstance(found, SubscriptionClaims):
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
        return expired(error)
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
    subscription = server_side(
        caller_of(context, info.user, granted),
        event.channel,
        overridden(options, event.override),
        channel_info,
        event.since,
        Binary(event.binary_data) if event.binary_data else event.data,
    )
    subscription.expires_at = monotonic_deadline(event.expire_at, now)
    return subscription


def server_side(
    caller: Caller,
    channel: str,
    options: ChannelOptions,
    info: ClientInfo,
    since: Position | None,
    data: Payload,
) -> Subscription:
    """Return a subscription that its client did not ask for."""
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
    channel, is_recoverable, is_positioned = request.channel, False, False
    if options.keeps_history:
        wants_recovery = request.recoverable or since is not None
        is_recoverable = options.force_recovery or (
            wants_recovery and (options.allow_recovery or _may(HISTORY, caller, channel, options))
        )
        is_positioned = (
            is_recoverable
            or options.force_positioning
            or (request.positioned and (options.allow_positioning or _may(HISTORY, caller, channel, options)))
        )
    receives_joins = options.join_leave and (
        options.force_push_join_leave or (request.join_leave and _may(PRESENCE, caller, channel, options))
    )
    return is_recoverable, is_positioned, receives_joins


def _may(action: Action, caller: Caller, channel: str, options: ChannelOptions) -> bool:
    """Whether a subscriber may do something in its channel, whose kind does not matter then."""
    subscriber = structs.replace(caller, is_subscribed=True)
    return permissions.decide(action, subscriber, channel, options, Kind.PLAIN) is None


def subscription_claims_of(approval: Approval | None) -> SubscriptionClaims | None:
    """Return the claims that an approval gives a subscription."""
    claims = None if approval is None else approval.claims
    return claims if isinstance(claims, SubscriptionClaims) else None
