"""Operations on channels and users: publish, history, presence, RPC, control commands, surveys.

The HTTP API and permitted client commands are executed here, through the engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from tocsin_server import errors
from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.client_options import ClientOptions
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.events import Execute
from tocsin_server.core.permissions import check_name
from tocsin_server.core.positions import NOTHING_BEFORE, may_read_from
from tocsin_server.eager_future import EagerFuture
from tocsin_server.engine.broker import HistoryQuery, IdempotencyKey, NewPublication
from tocsin_server.engine.engine import EngineServices
from tocsin_server.engine.nodes import ControlCommand, Drain, NodeInfo, SurveyRequest
from tocsin_server.errors import EngineLimit, Refusal, Refused, Unanswered
from tocsin_server.metrics.registry import Metrics
from tocsin_server.node.slices import in_slices
from tocsin_server.protocol.messages import (
    EMPTY,
    NO_JSON,
    HistoryRequest,
    HistoryResult,
    Position,
    PresenceRequest,
    PresenceResult,
    PresenceStatsRequest,
    PresenceStatsResult,
    PublishRequest,
    RpcRequest,
    RpcResult,
    SincePosition,
)
from tocsin_server.protocol.payloads import Binary, Payload, PayloadNotJson, is_json, json_of

RpcMethod = Callable[[str, Any], Awaitable[Any]]
"""An application's method: `await method(user, params)`, with params and answer as JSON values.

May raise Refused.
"""

LimitReached = Callable[..., None]
"""Called with the key of a limit that refused something, and with fields for the log."""


def _ignore_limit(_limit: str, **_fields: object) -> None:
    pass


class Operations:
    """What can be done with channels and users, by permitted client commands and by the HTTP API.

    Checks what holds for every caller: the namespace exists, the feature is on, the payload has the right
    form. Permissions are the caller's concern. Methods raise Refused with the protocol's code, or
    EngineError.

    `room_in(channel)` returns None if few enough bytes of a channel are queued here, else what to await.
    `limit_reached` counts and logs that a limit refused something.
    """

    def __init__(
        self,
        engine: EngineServices,
        rules: ChannelRules,
        metrics: Metrics,
        room_in: Callable[[str], Awaitable[None] | None],
        rpc_methods: Mapping[str, RpcMethod] | None = None,
        limit_reached: LimitReached = _ignore_limit,
    ) -> None:
        self._engine = engine
        self._rules = rules
        self._metrics = metrics
        self._room_in = room_in
        self._limit_reached = limit_reached
        self.rpc_methods = dict(rpc_methods or {})

    async def execute(self, execute: Execute, limits: ClientOptions) -> Struct:
        """Execute a permitted command of a client; return its result."""
        info = execute.info
        match execute.request:
            case PublishRequest(channel, data):
                if isinstance(data, Binary):
                    check_binary(data, self.options_for(channel))
                await self.publish(
                    channel, NewPublication(data, info=info, skip_history=execute.skip_history)
                )
                return EMPTY
            case HistoryRequest(channel, limit, since, reverse):
                return await self.history(channel, limit, since, reverse, limits)
            case PresenceRequest(channel):
                return await self.presence(channel)
            case PresenceStatsRequest(channel):
                return await self.presence_stats(channel)
            case RpcRequest(method, data):
                return RpcResult(await self.rpc(info.user, method, data))

    def options_for(self, channel: str) -> ChannelOptions:
        """Return the options of a channel. Raises Refused for a name that is not valid."""
        options = check_name(channel, self._rules) if channel else errors.bad_request("there is no channel")
        if isinstance(options, Refusal):
            raise Refused(options)
        return options

    async def publish(self, channel: str, publication: NewPublication) -> Position:
        """Publish into a channel. Returns the position; (0, "") where the channel keeps no history.

        Waits while the channel has too many bytes queued on this node.
        """
        begun = self.begin_publish(channel, publication)
        return begun if isinstance(begun, Position) else await begun

    def begin_publish(
        self, channel: str, publication: NewPublication
    ) -> Position | EagerFuture[Position] | Coroutine[Any, Any, Position]:
        """Publish at once if nothing must be waited for, and return the position. Otherwise, what to await.

        That is a future if the engine has to be waited for, and a coroutine if the channel has no room. The
        same as `publish`, for callers that want no coroutine for each publication.
        """
        options, problem = self._rules.find(channel)
        if options is None or problem or not channel:
            options = self.options_for(channel)  # raises
        if options.publication_data_format:
            check_format(publication.data, options.publication_data_format)
        if publication.tags or publication.version_epoch or not publication.idempotency_key.isascii():
            check_text(publication)
        room = self._room_in(channel)
        if room is None:
            return self._begin_publish(channel, publication, options)
        return self._publish_later(channel, publication, options, room)

    async def _publish_later(
        self, channel: str, publication: NewPublication, options: ChannelOptions, room: Awaitable[None]
    ) -> Position:
        await room
        begun = self._begin_publish(channel, publication, options)
        return begun if isinstance(begun, Position) else await begun

    def _begin_publish(
        self, channel: str, publication: NewPublication, options: ChannelOptions
    ) -> Position | EagerFuture[Position]:
        try:
            begun = self._engine.broker.begin_publish(channel, publication, options)
        except EngineLimit as error:
            raise self._limit(error, channel) from None
        if type(begun) is Position:
            self._metrics.publications.count += 1
            return begun
        return begun.then(self._published, self._publish_failed, channel)

    def _published(self, _channel: str, position: Position) -> Position:
        self._metrics.publications.count += 1
        return position

    def _publish_failed(self, channel: str, error: Exception) -> NoReturn:
        raise self._limit(error, channel) if isinstance(error, EngineLimit) else error

    def _limit(self, error: EngineLimit, channel: str) -> Refused:
        """Count and log that a limit of the engine refuses something in a channel."""
        self._limit_reached(error.limit, channel=channel)
        return Refused(error.refusal)

    async def expire_keys(self, keys: Sequence[IdempotencyKey]) -> None:
        """Let idempotency keys expire that no caller will repeat, as Broker describes."""
        await self._engine.broker.expire_keys(keys)

    async def history(
        self,
        channel: str,
        limit: int,
        since: SincePosition | None,
        is_reverse: bool,
        limits: ClientOptions | None = None,
    ) -> HistoryResult:
        """Return a page of history; `limit` 0 reads only the top, a negative one everything.

        `limits` bound the page of a client, in publications and in bytes.
        """
        options = self.options_for(channel)
        if not options.keeps_history:
            raise Refused(errors.NOT_AVAILABLE)
        if not may_read_from(since, is_reverse):
            raise Refused(errors.bad_request(NOTHING_BEFORE))
        limit_bytes = 0
        if limits is not None:
            limit = limit if 0 <= limit <= limits.history_limit else limits.history_limit
            limit_bytes = limits.history_limit_bytes
        position = None if since is None else Position(since.offset, since.epoch)
        history = await self._engine.broker.read_history(
            channel, HistoryQuery(position, limit, is_reverse, limit_bytes), options
        )
        if since is not None and since.epoch and since.epoch != history.top.epoch:
            raise Refused(errors.UNRECOVERABLE_POSITION)
        return HistoryResult(list(history.publications), history.top.epoch, history.top.offset)

    async def remove_history(self, channel: str) -> None:
        """Remove the publications that a channel's history keeps."""
        if not self.options_for(channel).keeps_history:
            raise Refused(errors.NOT_AVAILABLE)
        await self._engine.broker.remove_history(channel)

    async def presence(self, channel: str) -> PresenceResult:
        """Return which clients are in a channel."""
        self._require_presence(channel)
        return PresenceResult(dict(await self._engine.presence.members(channel)))

    async def presence_stats(self, channel: str) -> PresenceStatsResult:
        """Return how many clients and users are in a channel."""
        self._require_presence(channel)
        clients, users = await self._engine.presence.stats(channel)
        return PresenceStatsResult(clients, users)

    def _require_presence(self, channel: str) -> None:
        if not self.options_for(channel).presence:
            raise Refused(errors.NOT_AVAILABLE)

    async def control(self, command: ControlCommand) -> None:
        """Have every node execute a control command. Raises Unanswered if a node did not confirm in time."""
        await self._engine.nodes.publish_control(command)

    async def nodes(self) -> list[NodeInfo]:
        """Return every node's figures. A node that did not answer in time is among them, as `silent`."""
        survey = await self._engine.nodes.survey(SurveyRequest())
        return [*survey.nodes, *survey.silent]

    async def drain(self, name: str) -> None:
        """Drain the node of this uid, its first 8 digits, or name: its clients reconnect, then it stops.

        Raises Refused if there is no such node, or several: a name is not unique. Raises Unanswered if that
        node did not confirm in time; the other nodes do not matter.
        """
        node = _one_of(await self.nodes(), name)
        try:
            await self.control(ControlCommand("", Drain(node.uid)))
        except Unanswered as error:
            if node.uid in error.uids:
                raise Unanswered([node.uid]) from None

    async def channels(self, pattern: str) -> dict[str, int]:
        """Return the subscribers on all nodes, by channel; only of channels that match the glob, if any.

        Raises Unanswered if a node did not answer, since its channels are missing then.
        """
        found: dict[str, int] = {}
        survey = await self._engine.nodes.survey(SurveyRequest(wants_channels=True, pattern=pattern))
        if survey.silent:
            raise Unanswered(node.uid for node in survey.silent)
        for report in survey.nodes:
            async for channel, clients in in_slices(report.channels.items()):
                found[channel] = found.get(channel, 0) + clients
        return found

    async def rpc(self, user: str, method: str, params: Payload) -> msgspec.Raw:
        """Call an RPC method of the application on behalf of a user ("" for the HTTP API)."""
        call = self.rpc_methods.get(method)
        if call is None:
            raise Refused(errors.METHOD_NOT_FOUND)
        try:
            value = msgspec.json.decode(json_of(params)) if params else None
        except PayloadNotJson:
            raise Refused(errors.bad_request("the parameters of a method must be JSON")) from None
        answer = await call(user, value)
        return msgspec.Raw(msgspec.json.encode(answer))


def check_format(data: Payload, required: str) -> None:
    """Refuse data that has not the form that `publication_data_format` requires."""
    if required not in ("json", "json_object"):
        return
    try:
        text = json_of(data)
    except PayloadNotJson:
        text = NO_JSON
    if not text or (required == "json_object" and bytes(text)[:1] != b"{"):
        form = "JSON object" if required == "json_object" else "JSON"
        raise Refused(errors.bad_request(f"data is no {form}, which publication_data_format requires"))


def check_text(publication: NewPublication) -> None:
    """Refuse strings with half of a surrogate pair. JSON brings none, but an application's call may."""
    tags = publication.tags or {}
    strings = (publication.idempotency_key, publication.version_epoch, *tags, *tags.values())
    try:
        "".join(strings).encode()
    except UnicodeEncodeError:
        reason = "a string has half of a surrogate pair, which UTF-8 does not have"
        raise Refused(errors.bad_request(reason)) from None


def check_binary(data: Binary, options: ChannelOptions) -> None:
    """Refuse data of a client that is no JSON, unless the channel is for such data.

    It would disconnect every subscriber that speaks JSON. Back ends may publish it: they know their clients.
    """
    if options.publication_data_format != "binary" and not is_json(data):
        raise Refused(errors.bad_request('data is no JSON, and publication_data_format is not "binary"'))


def _one_of(nodes: Sequence[NodeInfo], name: str) -> NodeInfo:
    """The node of a uid, of its first 8 digits, or of a name. Raises Refused if there is none, or several."""
    found = [node for node in nodes if node.uid == name]
    found = found or [node for node in nodes if name in (node.uid[:8], node.name)]
    if not found:
        raise Refused(errors.NOT_FOUND)
    if len(found) > 1:
        candidates = ", ".join(sorted(f"{node.uid} ({node.address or node.name})" for node in found))
        raise Refused(errors.bad_request(f"{name} names {len(found)} nodes: {candidates}"))
    return found[0]
