"""Decides connect requests and refreshes of connections, without changing anything.

Each decision is a value: what is granted, or the `Refusal` (an error reply) or `Disconnect` (a close)
that the protocol names. Where an answer came from outside (`Approval`), its claims take the place of the
token's.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core import permissions
from tocsin_server.core.capabilities import Capabilities, actions, capabilities
from tocsin_server.core.channel_names import personal_channel
from tocsin_server.core.events import Approval, Timestamp
from tocsin_server.core.permissions import overridden
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.subscription import Subscription, monotonic_deadline
from tocsin_server.core.subscription_authorization import (
    caller_of,
    is_by_capability,
    may_subscribe,
    server_side,
    with_channel_info,
)
from tocsin_server.core.token_refusals import REVOKED, expired
from tocsin_server.core.tokens import (
    ConnectionClaims,
    ExpiringGrant,
    KeysUnavailable,
    MappedClaims,
    SubscriptionGrant,
    TokenExpired,
    TokenInvalid,
    embedded,
    embedded_data,
    issued_at,
)
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import (
    NO_JSON,
    ClientInfo,
    ConnectRequest,
    Position,
    SubscribeRequest,
    SubscriptionPosition,
)
from tocsin_server.protocol.payloads import Payload


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
    if not isinstance(found, ConnectionClaims):
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
    if not isinstance(subscriptions, dict):
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
    if not isinstance(found, ConnectionClaims) or (claims is None and not token):
        return found
    if context.revocations.covers(found.jti, found.sub, issued_at(found), now.unix):
        context.report_refusal(client, "connection token", REVOKED)
        return errors.because(errors.TOKEN_EXPIRED, REVOKED)
    return found


def authorize_refresh(
    context: SessionContext,
    info: ClientInfo,
    granted: frozenset[str],
    token: str,
    now: Timestamp,
    claims: ConnectionClaims | None = None,
) -> ConnectionClaims | Refusal | Disconnect:
    """Decide a refresh command of a connection to which its token `granted` these channels."""
    found = connection_claims(context, info.client, token, now, claims)
    if found is errors.SERVER_ERROR:  # the keys cannot be fetched now: the client tries again
        return errors.INTERNAL_ERROR
    if isinstance(found, Refusal):
        return errors.CONNECTION_EXPIRED
    if isinstance(found, Disconnect):
        return found
    if found.sub != info.user:
        context.report_refusal(info.client, "connection token", "it is for another user")
        return errors.INVALID_TOKEN
    if frozenset(found.grants) != granted:
        context.report_refusal(info.client, "connection token", "it grants other channels")
        return errors.INSUFFICIENT_STATE
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
        return expired(error)
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
        found[channel] = server_side(caller, channel, options, channel_info, since, data)

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
            found[channel].is_by_capability = is_by_capability(context, caller, channel, checked)
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
