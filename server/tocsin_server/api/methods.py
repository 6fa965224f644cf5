"""The methods of the API, and the table that lists them.

The docstring of a method is its description in the OpenAPI document.
"""

from __future__ import annotations

import base64
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tocsin_server import errors
from tocsin_server.api import types
from tocsin_server.api.calls import (
    Context,
    Method,
    Pending,
    api_error,
    attempt_in_turn,
    attempt_together,
    too_many_calls,
)
from tocsin_server.api.webhook_methods import WEBHOOK_METHODS
from tocsin_server.cancellation import call_as_task
from tocsin_server.core.events import (
    ServerDisconnect,
    ServerEvent,
    ServerRefresh,
    ServerSubscribe,
    ServerUnsubscribe,
)
from tocsin_server.core.revocations import Revocation
from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.nodes import ControlCommand
from tocsin_server.errors import Disconnect, Refusal, Refused, bad_request
from tocsin_server.node.node import Node
from tocsin_server.node.session_tasks import log_left_method
from tocsin_server.node.slices import in_slices
from tocsin_server.protocol.canonical import is_set
from tocsin_server.protocol.json_text import compact
from tocsin_server.protocol.messages import NO_JSON, ClientInfo, Position, Publication
from tocsin_server.protocol.payloads import Binary, Payload, PayloadNotJson, json_of, payload_of

if TYPE_CHECKING:
    from tocsin_server.api.calls import Later

DONE = types.EmptyResult()


def publish(
    context: Context, request: types.PublishRequest
) -> types.PublishResult | Later[types.PublishResult]:
    """Publish into a channel.

    Returns the publication's position once it is stored, if the channel keeps history. A repeated
    `idempotency_key` publishes nothing and returns the first result. An outdated `version` publishes nothing
    and returns the channel's top.
    """
    return _publish(context.node, request.channel, _new_publication(request))


async def broadcast(context: Context, request: types.BroadcastRequest) -> types.BroadcastResult:
    """Publish the same data into several channels.

    Each channel has its own response, in the order of the channels. A refused channel does not stop the
    others. An `idempotency_key` applies to each channel separately.
    """
    publication = _new_publication(request)
    call = partial(_publish_if_permitted, context, publication)
    outcomes = await attempt_together(context.turns, call, request.channels)
    return types.BroadcastResult(
        [
            types.BroadcastResponse(error=api_error(outcome))
            if isinstance(outcome, Refusal)
            else types.BroadcastResponse(result=outcome)
            for outcome in outcomes
        ]
    )


async def presence(context: Context, request: types.ChannelRequest) -> types.PresenceResult:
    """Return the clients in a channel. Error 108 if the channel keeps no presence."""
    found = (await context.node.operations.presence(request.channel)).presence
    return types.PresenceResult({client: _details(info) for client, info in found.items()})


async def presence_stats(context: Context, request: types.ChannelRequest) -> types.PresenceStatsResult:
    """Return how many clients and users are in a channel. Error 108 if the channel keeps no presence."""
    found = await context.node.operations.presence_stats(request.channel)
    return types.PresenceStatsResult(found.num_clients, found.num_users)


async def history(context: Context, request: types.HistoryRequest) -> types.HistoryResult:
    """Read a page of a channel's history, and its top.

    The page goes forward from the oldest publication, or from the one after `since`. With `reverse` it goes
    backward from the newest, or from the one before `since`. Error 108 if the channel keeps no history, 112
    if `since` has another epoch.
    """
    read = context.node.operations.history
    page = await read(request.channel, request.limit, request.since, request.reverse)
    publications = [_history_publication(publication) for publication in page.publications]
    return types.HistoryResult(publications, page.epoch, page.offset)


async def history_remove(context: Context, request: types.ChannelRequest) -> types.EmptyResult:
    """Remove a channel's history. Offsets continue from the top."""
    await context.node.operations.remove_history(request.channel)
    return DONE


async def channels(context: Context, request: types.ChannelsRequest) -> types.ChannelsResult:
    """Return the channels that have subscribers, and how many each has: those that the key is for."""
    found = await context.node.operations.channels(request.pattern)
    scope = context.caller.scope
    listed = {
        channel: types.ChannelInfo(clients)
        async for channel, clients in in_slices(found.items())
        if scope.has_channel(channel)
    }
    return types.ChannelsResult(listed)


async def info(context: Context, _request: types.InfoRequest) -> types.InfoResult:
    """Return every node that is alive, with its state and figures."""
    nodes = await context.node.operations.nodes()
    return types.InfoResult(msgspec.convert(nodes, list[types.NodeStatus], from_attributes=True))


async def drain(context: Context, request: types.DrainRequest) -> types.EmptyResult:
    """Drain a node, as SIGTERM does: its clients are told to reconnect, then it stops.

    Returns once the drain has begun. Error 104 if there is no such node, and 107 if several have the name.
    """
    await context.node.operations.drain(request.node)
    return DONE


async def rpc(context: Context, request: types.RpcRequest) -> types.RpcResult:
    """Call a method that the embedding application registered. Error 104 if it registered no such method."""
    if request.method not in context.node.operations.rpc_methods:
        raise Refused(errors.NOT_FOUND)
    answer = context.node.operations.rpc("", request.method, request.params or NO_JSON)
    return types.RpcResult(await call_as_task(answer, request.method, log_left_method))


async def disconnect(context: Context, request: types.DisconnectRequest) -> types.EmptyResult:
    """Close a user's connections, by default with 3503 "force disconnect": clients do not reconnect."""
    given = request.disconnect
    why = Disconnect(given.code, given.reason) if given else errors.FORCE_DISCONNECT
    return await _control(context.node, request, ServerDisconnect(why), tuple(request.whitelist))


async def unsubscribe(context: Context, request: types.UnsubscribeRequest) -> types.EmptyResult:
    """End one subscription of a user's connections, or all. Clients are told with code 2000."""
    if request.channel:
        context.node.operations.options_for(request.channel)
    return await _control(context.node, request, ServerUnsubscribe(request.channel))


async def subscribe(context: Context, request: types.SubscribeRequest) -> types.EmptyResult:
    """Subscribe a user's connections to a channel.

    `info` is the information that the channel's other clients see. `data` is part of the push that tells the
    client. With `recover_since` the client also gets the publications after that position. `override` changes
    the channel's options for these subscriptions. It is answered once the subscriptions are live. It also
    succeeds if the user has no connection.
    """
    context.node.operations.options_for(request.channel)
    since = request.recover_since
    plain = request.data if request.data is not UNSET and is_set(request.data) else UNSET
    data = _data(plain, request.b64data)
    event = ServerSubscribe(
        request.channel,
        info=_info(request.info, request.b64info),
        data=NO_JSON if isinstance(data, Binary) else data,
        binary_data=data if isinstance(data, Binary) else b"",
        expire_at=request.expire_at,
        since=Position(since.offset, since.epoch) if since else None,
        override=request.override,
    )
    return await _control(context.node, request, event)


async def refresh(context: Context, request: types.RefreshRequest) -> types.EmptyResult:
    """Change when a user's connections expire. With `expired` they expire now (3005): clients reconnect."""
    event = ServerRefresh(request.expired, request.expire_at, _info(request.info, ""))
    return await _control(context.node, request, event)


async def revoke_token(context: Context, request: types.RevokeTokenRequest) -> types.EmptyResult:
    """Revoke one token, by its `jti`, until it has expired.

    Every node refuses it from now on (error 109), closes the connections that were made with it (3005), and
    ends its subscriptions (2501): clients get a new token. Error 106 if there are too many revocations.
    """
    await context.node.revoke(Revocation(request.expire_at, token_id=request.uid))
    return DONE


async def invalidate_user_tokens(
    context: Context, request: types.InvalidateUserTokensRequest
) -> types.EmptyResult:
    """Revoke a user's tokens that were issued before a moment, until they have expired.

    What was made with them ends as for `revoke_token`. With a moment in the future, no token of the user is
    accepted until then. Error 106 if there are too many revocations.
    """
    if request.channel:
        context.node.operations.options_for(request.channel)
    await context.node.revoke(
        Revocation(
            request.expire_at,
            user=request.user,
            channel=request.channel,
            issued_before=request.issued_before,
        )
    )
    return DONE


async def batch(context: Context, request: types.BatchRequest) -> types.BatchResult:
    """Make several calls in one request.

    Each call has its own reply, in the order of the commands. A refused call does not stop the others. A
    command without a known method has error 104, and null has error 107. The result is not wrapped.
    """
    attempt_all = attempt_together if request.parallel else attempt_in_turn
    outcomes = await attempt_all(context.turns, partial(_run, context), request.commands)
    return types.BatchResult(
        [
            types.BatchReply(error=api_error(outcome)) if isinstance(outcome, Refusal) else outcome
            for outcome in outcomes
        ]
    )


def _calls_of_broadcast(request: types.BroadcastRequest) -> int:
    return len(request.channels)


def _calls_of_batch(request: types.BatchRequest) -> int:
    calls = sum(len(one.broadcast.channels) if one and one.broadcast else 1 for one in request.commands)
    if calls > types.CALLS_LIMIT:
        raise Refused(too_many_calls("calls, each channel of a broadcast being one"))
    return calls


COMMANDS = {
    "publish": Method(publish, types.PublishRequest, types.PublishResult),
    "broadcast": Method(broadcast, types.BroadcastRequest, types.BroadcastResult, weigh=_calls_of_broadcast),
    "presence": Method(presence, types.ChannelRequest, types.PresenceResult),
    "presence_stats": Method(presence_stats, types.ChannelRequest, types.PresenceStatsResult),
    "history": Method(history, types.HistoryRequest, types.HistoryResult),
    "history_remove": Method(history_remove, types.ChannelRequest, types.EmptyResult),
    "channels": Method(channels, types.ChannelsRequest, types.ChannelsResult),
    "info": Method(info, types.InfoRequest, types.InfoResult),
    "rpc": Method(rpc, types.RpcRequest, types.RpcResult),
    "disconnect": Method(disconnect, types.DisconnectRequest, types.EmptyResult),
    "unsubscribe": Method(unsubscribe, types.UnsubscribeRequest, types.EmptyResult),
    "subscribe": Method(subscribe, types.SubscribeRequest, types.EmptyResult),
    "refresh": Method(refresh, types.RefreshRequest, types.EmptyResult),
    "revoke_token": Method(revoke_token, types.RevokeTokenRequest, types.EmptyResult),
    "invalidate_user_tokens": Method(
        invalidate_user_tokens, types.InvalidateUserTokensRequest, types.EmptyResult
    ),
}
"""The methods that a batch and the legacy endpoint may call."""

METHODS = {
    **COMMANDS,
    "drain": Method(drain, types.DrainRequest, types.EmptyResult),
    **WEBHOOK_METHODS,
    "batch": Method(batch, types.BatchRequest, types.BatchResult, is_wrapped=False, weigh=_calls_of_batch),
}
"""The methods with a path of their own, `/api/<name>`."""


def _run(context: Context, command: types.BatchCommand | None) -> types.BatchReply | Later[types.BatchReply]:
    if command is None:
        raise Refused(bad_request("a command is null"))
    for name, method in COMMANDS.items():
        request = getattr(command, name)
        if request is not None:
            context.permit(name, request)
            outcome = method.call(context, request)
            if not isinstance(outcome, Pending):
                return _reply(name, outcome)
            if isinstance(outcome, EagerFuture):
                return outcome.then(_reply, None, name)
            return _reply_later(name, outcome)
    raise Refused(errors.NOT_FOUND)


def _reply(name: str, result: Any) -> types.BatchReply:
    reply = types.BatchReply()
    setattr(reply, name, result)
    return reply


async def _reply_later(name: str, outcome: Later[Any]) -> types.BatchReply:
    return _reply(name, await outcome)


def _publish_if_permitted(
    context: Context, publication: NewPublication, channel: str
) -> types.PublishResult | Later[types.PublishResult]:
    context.permit("broadcast", types.ChannelRequest(channel))
    return _publish(context.node, channel, publication)


def _publish(
    node: Node, channel: str, publication: NewPublication
) -> types.PublishResult | Later[types.PublishResult]:
    begun = node.operations.begin_publish(channel, publication)
    if type(begun) is Position:
        return _published(begun)
    return begun.then(_published) if isinstance(begun, EagerFuture) else _published_later(begun)


def _published(position: Position) -> types.PublishResult:
    return types.PublishResult(position.offset, position.epoch)


async def _published_later(begun: Coroutine[Any, Any, Position]) -> types.PublishResult:
    return _published(await begun)


def _new_publication(request: types.PublicationFields) -> NewPublication:
    data = _data(request.data, request.b64data)
    if not data:
        raise Refused(bad_request("neither `data` nor `b64data`"))
    return NewPublication(
        data,
        tags=request.tags,
        skip_history=request.skip_history,
        idempotency_key=request.idempotency_key,
        version=request.version,
        version_epoch=request.version_epoch,
        delta=request.delta,
    )


def _data(value: Raw | UnsetType, in_base64: str) -> Payload:
    """The data of a publication, from the plain or the base64 member. NO_JSON if there is neither.

    The plain one is a view into the request's body, which is compact already. The copy releases the body.
    """
    if in_base64:
        return payload_of(_decoded(in_base64, "data"))
    return NO_JSON if value is UNSET else value.copy()


def _info(value: Raw | UnsetType, in_base64: str) -> Raw:
    """The information about a client. It need not be there, and null counts as absent."""
    if in_base64:
        try:
            return compact(_decoded(in_base64, "info"))
        except ValueError as error:
            raise Refused(bad_request(f"no JSON at `$.b64info`: {error}")) from None
    return value.copy() if value is not UNSET and is_set(value) else NO_JSON


def _decoded(in_base64: str, name: str) -> bytes:
    try:
        return base64.b64decode(in_base64, validate=True)
    except ValueError as error:
        raise Refused(bad_request(f"no base64 at `$.b64{name}`: {error}")) from None


async def _control(
    node: Node, request: types.UserRequest, event: ServerEvent, exclude_clients: tuple[str, ...] = ()
) -> types.EmptyResult:
    """Send a control command to all nodes. A request with a session id does nothing: no session has one."""
    if not request.session:
        await node.operations.control(
            ControlCommand(request.user, event, request.client, exclude_clients=exclude_clients)
        )
    return DONE


def _history_publication(publication: Publication) -> types.HistoryPublication:
    info = _details(publication.info) if publication.info else None
    data, in_base64 = _json_or_base64(publication.data)
    return types.HistoryPublication(
        data=data, b64data=in_base64, offset=publication.offset, info=info, tags=publication.tags
    )


def _json_or_base64(data: Payload) -> tuple[Raw | UnsetType, str | UnsetType]:
    try:
        return json_of(data), UNSET
    except PayloadNotJson:
        return UNSET, base64.b64encode(bytes(data)).decode()


def _details(info: ClientInfo) -> types.ClientDetails:
    return types.ClientDetails(info.user, info.client, info.conn_info or UNSET, info.chan_info or UNSET)
