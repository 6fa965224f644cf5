"""The methods of the API, and the table in which they stand.

A method's docstring is its description in the OpenAPI document.
"""

from __future__ import annotations

import base64
from functools import partial

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tocsin_server import errors
from tocsin_server.api import types
from tocsin_server.api.calls import (
    Method,
    attempt_in_turn,
    attempt_together,
    bad_request,
    failure,
    too_many_calls,
)
from tocsin_server.core.events import (
    ServerDisconnect,
    ServerEvent,
    ServerRefresh,
    ServerSubscribe,
    ServerUnsubscribe,
)
from tocsin_server.engine.broker import NewPublication
from tocsin_server.engine.nodes import ControlCommand
from tocsin_server.errors import Disconnect, Refusal, Refused
from tocsin_server.node.node import Node
from tocsin_server.protocol.json import compact
from tocsin_server.protocol.messages import NO_JSON, ClientInfo, Position, Publication

DONE = types.EmptyResult()


async def publish(node: Node, request: types.PublishRequest) -> types.PublishResult:
    """Publish into a channel.

    Answers the publication's position if the channel keeps history, once it is stored. A repeated
    `idempotency_key` gives the first answer again and publishes nothing. An outdated `version` publishes
    nothing and gives the log's top.
    """
    return await _publish(node, request.channel, _draft(request))


async def broadcast(node: Node, request: types.BroadcastRequest) -> types.BroadcastResult:
    """Publish the same into several channels.

    Each channel has its own answer, in the order of the channels; one that is refused does not stop the
    others. An `idempotency_key` counts for each channel by itself.
    """
    draft = _draft(request)
    calls = [partial(_publish, node, channel, draft) for channel in request.channels]
    outcomes = await attempt_together(calls)
    return types.BroadcastResult(
        [
            types.BroadcastAnswer(error=failure(outcome))
            if isinstance(outcome, Refusal)
            else types.BroadcastAnswer(result=outcome)
            for outcome in outcomes
        ]
    )


async def presence(node: Node, request: types.ChannelRequest) -> types.PresenceResult:
    """Who is in a channel. Error 108 where presence is off."""
    found = (await node.operations.presence(request.channel)).presence
    return types.PresenceResult({client: _member(info) for client, info in found.items()})


async def presence_stats(node: Node, request: types.ChannelRequest) -> types.PresenceStatsResult:
    """How many connections and users are in a channel. Error 108 where presence is off."""
    found = await node.operations.presence_stats(request.channel)
    return types.PresenceStatsResult(found.num_clients, found.num_users)


async def history(node: Node, request: types.HistoryRequest) -> types.HistoryResult:
    """Read a channel's log, and its top.

    Forward from the oldest kept or from after `since`, with `reverse` backward from the newest or from before
    it. Error 108 where no history is kept, 112 where `since` is of another epoch.
    """
    page = await node.operations.history(request.channel, request.limit, request.since, request.reverse)
    kept = [_kept(publication) for publication in page.publications]
    return types.HistoryResult(kept, page.epoch, page.offset)


async def history_remove(node: Node, request: types.ChannelRequest) -> types.EmptyResult:
    """Drop what a channel's log keeps. Offsets go on from where they were."""
    await node.operations.remove_history(request.channel)
    return DONE


async def channels(node: Node, request: types.ChannelsRequest) -> types.ChannelsResult:
    """Which channels have subscribers, and how many."""
    found = await node.operations.channels(request.pattern)
    return types.ChannelsResult(
        {channel: types.ChannelFigures(clients) for channel, clients in found.items()}
    )


async def info(node: Node, _request: types.InfoRequest) -> types.InfoResult:
    """Which nodes are there, and what they serve."""
    reports = await node.operations.nodes()
    return types.InfoResult(msgspec.convert(reports, list[types.NodeFigures], from_attributes=True))


async def drain(node: Node, request: types.DrainRequest) -> types.EmptyResult:
    """Have a node leave on purpose, as with SIGTERM: its clients are sent elsewhere, then it stops.

    Answers once it has begun. Error 104 if there is no such node.
    """
    await node.operations.drain(request.node)
    return DONE


async def rpc(node: Node, request: types.RpcRequest) -> types.RpcResult:
    """Call a method that the application registered. Error 104 if there is none of that name."""
    if request.method not in node.operations.rpc_methods:
        raise Refused(errors.NOT_FOUND)
    return types.RpcResult(await node.operations.rpc("", request.method, request.params or NO_JSON))


async def disconnect(node: Node, request: types.DisconnectRequest) -> types.EmptyResult:
    """Close a user's connections, by default with 3503 "force disconnect", after which they stay away."""
    told = request.disconnect
    why = Disconnect(told.code, told.reason) if told else errors.FORCE_DISCONNECT
    return await _order(node, request, ServerDisconnect(why), tuple(request.whitelist))


async def unsubscribe(node: Node, request: types.UnsubscribeRequest) -> types.EmptyResult:
    """End a subscription of a user's connections, or all of them; they are told with code 2000."""
    if request.channel:
        node.operations.options_for(request.channel)
    return await _order(node, request, ServerUnsubscribe(request.channel))


async def subscribe(node: Node, request: types.SubscribeRequest) -> types.EmptyResult:
    """Subscribe a user's connections to a channel.

    `info` is what the channel sees of them there, `data` goes to them with the push that tells them,
    `recover_since` also sends what was published since, `override` changes the channel's options for them.
    Also succeeds if the user has no connection.
    """
    node.operations.options_for(request.channel)
    since = request.recover_since
    event = ServerSubscribe(
        request.channel,
        info=_payload(request.info, request.b64info, "info"),
        data=_payload(request.data, request.b64data, "data"),
        expire_at=request.expire_at,
        since=Position(since.offset, since.epoch) if since else None,
        override=request.override,
    )
    return await _order(node, request, event)


async def refresh(node: Node, request: types.RefreshRequest) -> types.EmptyResult:
    """Move the end of a user's connections, or with `expired` end them now (3005: they come back)."""
    event = ServerRefresh(request.expired, request.expire_at, _payload(request.info, "", "info"))
    return await _order(node, request, event)


async def batch(node: Node, request: types.BatchRequest) -> types.BatchResult:
    """Do several calls in one request.

    Each has its own reply, in the order of the commands; one that is refused does not stop the others. Error
    104 in place of a command without a known method, 107 in place of null. The result is not wrapped.
    """
    if sum(map(_weight, request.commands)) > types.CALLS_LIMIT:
        raise Refused(too_many_calls("calls, each channel of a broadcast being one"))
    calls = [partial(_run, node, command) for command in request.commands]
    outcomes = await (attempt_together if request.parallel else attempt_in_turn)(calls)
    return types.BatchResult(
        [
            types.BatchReply(error=failure(outcome)) if isinstance(outcome, Refusal) else outcome
            for outcome in outcomes
        ]
    )


COMMANDS = {
    "publish": Method(publish, types.PublishRequest, types.PublishResult),
    "broadcast": Method(broadcast, types.BroadcastRequest, types.BroadcastResult),
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
}
"""What may also stand in a batch and go to the single endpoint."""

METHODS = {
    **COMMANDS,
    "drain": Method(drain, types.DrainRequest, types.EmptyResult),
    "batch": Method(batch, types.BatchRequest, types.BatchResult, is_wrapped=False),
}
"""What has a path of its own, `/api/<name>`."""


def _weight(command: types.BatchCommand | None) -> int:
    """As how many calls a command counts."""
    return len(command.broadcast.channels) if command and command.broadcast else 1


async def _run(node: Node, command: types.BatchCommand | None) -> types.BatchReply:
    if command is None:
        raise Refused(bad_request("a command is null"))
    for name, method in COMMANDS.items():
        request = getattr(command, name)
        if request is not None:
            return types.BatchReply(**{name: await method.call(node, request)})
    raise Refused(errors.NOT_FOUND)


async def _publish(node: Node, channel: str, draft: NewPublication) -> types.PublishResult:
    position = await node.operations.publish(channel, draft)
    return types.PublishResult(position.offset, position.epoch)


def _draft(request: types.Publishing) -> NewPublication:
    data = _payload(request.data, request.b64data, "data")
    if not data:
        raise Refused(bad_request("neither `data` nor `b64data`"))
    return NewPublication(
        data,
        tags=request.tags,
        skip_history=request.skip_history,
        idempotency_key=request.idempotency_key,
        version=request.version,
        version_epoch=request.version_epoch,
    )


def _payload(value: Raw | UnsetType, in_base64: str, name: str) -> Raw:
    """A payload as it may travel, from whichever form was given; NO_JSON if neither was.

    A plain one is part of a body that was made compact as a whole; the copy lets go of that body.
    """
    if not in_base64:
        return NO_JSON if value is UNSET else value.copy()
    try:
        return compact(base64.b64decode(in_base64, validate=True))
    except ValueError as error:
        raise Refused(bad_request(f"no JSON at `$.b64{name}`: {error}")) from None


async def _order(
    node: Node, request: types.UserRequest, event: ServerEvent, spared: tuple[str, ...] = ()
) -> types.EmptyResult:
    """Have all nodes do it to the connections meant; a session id means none, since nobody was given any."""
    if not request.session:
        await node.operations.control(ControlCommand(request.user, event, request.client, spared))
    return DONE


def _kept(publication: Publication) -> types.KeptPublication:
    info = _member(publication.info) if publication.info else None
    return types.KeptPublication(publication.data, publication.offset, info, publication.tags)


def _member(info: ClientInfo) -> types.Member:
    return types.Member(info.user, info.client, info.conn_info or UNSET, info.chan_info or UNSET)
