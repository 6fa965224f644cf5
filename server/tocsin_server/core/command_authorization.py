"""Decides publish, presence, history and RPC commands, which are executed outside the session.

Each decision is a value: the `Execute` effect, or the `Refusal` (an error reply), the limit that is
`Exceeded`, or the `Disconnect` (a close) in its place. The only state that changes is what clients use of
their limits.
"""

from __future__ import annotations

from collections.abc import Mapping

from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core import permissions
from tocsin_server.core.capabilities import Action
from tocsin_server.core.client_limits import Exceeded
from tocsin_server.core.events import Approval, Execute, Timestamp
from tocsin_server.core.positions import NOTHING_BEFORE, may_read_from
from tocsin_server.core.session_context import SessionContext
from tocsin_server.core.subscription_authorization import caller_of, with_channel_info
from tocsin_server.core.subscriptions import Subscriptions
from tocsin_server.errors import Disconnect, Refusal
from tocsin_server.protocol.messages import (
    ClientInfo,
    HistoryRequest,
    PresenceRequest,
    PresenceStatsRequest,
    PublishRequest,
    Request,
    RpcRequest,
    SubscribeRequest,
)

ChannelRequest = PublishRequest | PresenceRequest | PresenceStatsRequest | HistoryRequest
ExecutedRequest = ChannelRequest | RpcRequest

_ACTIONS: Mapping[type[ChannelRequest], Action] = {
    PublishRequest: Action.PUBLISH,
    PresenceRequest: Action.PRESENCE,
    PresenceStatsRequest: Action.PRESENCE,
    HistoryRequest: Action.HISTORY,
}

NO_DATA = errors.bad_request("there is no data")


def authorize_command(
    context: SessionContext,
    info: ClientInfo,
    subscriptions: Subscriptions,
    command_id: int,
    request: ExecutedRequest,
    approval: Approval | None,
    now: Timestamp,
) -> Execute | Refusal | Exceeded | Disconnect:
    """Decide a command of a connection that is `info` and has `subscriptions`."""
    if isinstance(request, RpcRequest):
        if request.method in context.rpc_methods:
            return Execute(command_id, request, info)
        has_methods = context.rpc_methods or approval is not None
        return errors.METHOD_NOT_FOUND if has_methods else errors.NOT_AVAILABLE
    if isinstance(request, HistoryRequest) and not may_read_from(request.since, request.reverse):
        return errors.bad_request(NOTHING_BEFORE)
    is_permitted = approval is not None and approval.is_permitted
    options = _check(context, info, subscriptions, request, is_permitted=is_permitted)
    if not isinstance(options, ChannelOptions):
        return options
    if (
        approval is None  # else it was taken before the authorization was requested
        and isinstance(request, PublishRequest)
        and (exceeded := _take_publication(context, info, request.channel, options, now))
    ):
        return exceeded
    subscription = subscriptions.live_in(request.channel)
    if subscription is not None:
        info = with_channel_info(info, subscription.info.chan_info)
    return Execute(command_id, request, info, approval is not None and approval.skip_history)


def check_before_asking(
    context: SessionContext,
    info: ClientInfo,
    subscriptions: Subscriptions,
    request: Request,
    now: Timestamp,
) -> Refusal | Exceeded | Disconnect | None:
    """Return why a command is refused without asking anyone outside: no answer could permit it.

    Such as one that is not valid, or one publication too many.
    """
    if isinstance(request, SubscribeRequest):
        return subscriptions.check(request, info)
    if not isinstance(request, PublishRequest):
        return None
    options = _check(context, info, subscriptions, request, is_permitted=True)
    if not isinstance(options, ChannelOptions):
        return options
    return _take_publication(context, info, request.channel, options, now)


def _check(
    context: SessionContext,
    info: ClientInfo,
    subscriptions: Subscriptions,
    request: ChannelRequest,
    *,
    is_permitted: bool,
) -> ChannelOptions | Refusal | Disconnect:
    """Return the options of the channel, or why the client may not do this in it.

    With `is_permitted` the name of the channel alone decides.
    """
    channel = request.channel
    if not channel:
        return errors.PROTOCOL_VIOLATION
    if isinstance(request, PublishRequest) and not request.data:
        return NO_DATA
    options = permissions.check_name(channel, context.rules)
    if isinstance(options, Refusal):
        return options
    caller = caller_of(context, info.user, subscriptions.capabilities, subscriptions.live_in(channel))
    kind, action = context.rules.kind_of(channel, options), _ACTIONS[type(request)]
    if is_permitted:
        refusal = permissions.decide_by_name(action, caller, channel, kind)
    else:
        refusal = permissions.decide(action, caller, channel, options, kind)
    return options if refusal is None else refusal


def _take_publication(
    context: SessionContext, info: ClientInfo, channel: str, options: ChannelOptions, now: Timestamp
) -> Exceeded | None:
    return context.limits.take_publication(info, channel, options, now.monotonic)
