"""What can be done with channels and users.

Whoever asks: a client whose command was permitted, or the HTTP API. Checks what holds for everybody (the
namespace exists, the feature is on, the payload has the right form) and asks the engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from tocsin_server import errors
from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.engine.engine import EngineServices
from tocsin_server.engine.nodes import ControlCommand, Drain, NodeInfo, SurveyRequest
from tocsin_server.errors import Refused, Unanswered
from tocsin_server.protocol.messages import (
    HistoryResult,
    Position,
    PresenceResult,
    PresenceStatsResult,
    SincePosition,
)

RpcMethod = Callable[[str, Any], Awaitable[Any]]
"""An application's method: `await method(user, params)`, with params and answer as JSON values.

May raise Refused.
"""


class Operations:
    """The engine behind the rules. Methods raise Refused with the protocol's code, or EngineError."""

    def __init__(
        self, engine: EngineServices, rules: ChannelRules, rpc_methods: Mapping[str, RpcMethod] | None = None
    ) -> None:
        self._engine = engine
        self._rules = rules
        self.rpc_methods = dict(rpc_methods or {})

    def options_for(self, channel: str) -> ChannelOptions:
        """The options of a channel that somebody named."""
        if not channel or self._rules.is_too_long(channel):
            raise Refused(errors.BAD_REQUEST)
        options = self._rules.options_for(channel)
        if options is None:
            raise Refused(errors.UNKNOWN_CHANNEL)
        if not self._rules.is_well_formed(channel, options):
            raise Refused(errors.BAD_REQUEST)
        return options

    async def publish(self, channel: str, draft: NewPublication) -> Position:
        """Publish into a channel; the position is (0, "") where it keeps no log."""
        options = self.options_for(channel)
        if options.publication_data_format == "json_object" and bytes(draft.data)[:1] != b"{":
            raise Refused(errors.BAD_REQUEST)
        return await self._engine.broker.publish(channel, draft, options)

    async def history(
        self, channel: str, limit: int, since: SincePosition | None, is_reverse: bool, cap: int | None = None
    ) -> HistoryResult:
        """A page of a channel's log, of at most `cap`; `limit` 0 reads only its top, a negative one all."""
        options = self.options_for(channel)
        if not options.keeps_history:
            raise Refused(errors.NOT_AVAILABLE)
        if is_reverse and since is not None and since.offset == 0:
            raise Refused(errors.BAD_REQUEST)
        if cap is not None and not 0 <= limit <= cap:
            limit = cap
        position = None if since is None else Position(since.offset, since.epoch)
        top, publications = await self._engine.broker.read_history(
            channel, HistoryQuery(position, limit, is_reverse), options
        )
        if since is not None and since.epoch and since.epoch != top.epoch:
            raise Refused(errors.UNRECOVERABLE_POSITION)
        return HistoryResult(list(publications), top.epoch, top.offset)

    async def remove_history(self, channel: str) -> None:
        """Drop what a channel's log keeps."""
        if not self.options_for(channel).keeps_history:
            raise Refused(errors.NOT_AVAILABLE)
        await self._engine.broker.remove_history(channel)

    async def presence(self, channel: str) -> PresenceResult:
        """Who is in a channel."""
        self._require_presence(channel)
        return PresenceResult(dict(await self._engine.presence.members(channel)))

    async def presence_stats(self, channel: str) -> PresenceStatsResult:
        """How many are in a channel."""
        self._require_presence(channel)
        clients, users = await self._engine.presence.stats(channel)
        return PresenceStatsResult(clients, users)

    def _require_presence(self, channel: str) -> None:
        if not self.options_for(channel).presence:
            raise Refused(errors.NOT_AVAILABLE)

    async def control(self, order: ControlCommand) -> None:
        """Have every node do something to a user's connections."""
        await self._engine.nodes.publish_control(order)

    async def nodes(self) -> list[NodeInfo]:
        """What each node says of itself. One that says nothing is there too, in the state `silent`."""
        survey = await self._engine.nodes.survey(SurveyRequest())
        return [*survey.nodes, *survey.silent]

    async def drain(self, name: str) -> None:
        """Have the node of this uid or name leave on purpose: its clients go elsewhere, then it stops.

        Raises Unanswered if it did not say that it will; what the others say does not matter.
        """
        for node in await self.nodes():
            if name in (node.uid, node.uid[:8], node.name):
                break
        else:
            raise Refused(errors.NOT_FOUND)
        try:
            await self.control(ControlCommand("", Drain(node.uid)))
        except Unanswered as error:
            if node.uid in error.uids:
                raise Unanswered([node.uid]) from None

    async def channels(self, pattern: str) -> dict[str, int]:
        """How many subscribers each channel has anywhere; of those that match the glob, if there is one.

        Raises Unanswered if there may be more of them.
        """
        found: dict[str, int] = {}
        survey = await self._engine.nodes.survey(SurveyRequest(wants_channels=True, pattern=pattern))
        if survey.silent:
            raise Unanswered(node.uid for node in survey.silent)
        for report in survey.nodes:
            for channel, clients in report.channels.items():
                found[channel] = found.get(channel, 0) + clients
        return found

    async def rpc(self, user: str, method: str, params: msgspec.Raw) -> msgspec.Raw:
        """Call an application's method on behalf of a user ("" for the HTTP API)."""
        call = self.rpc_methods.get(method)
        if call is None:
            raise Refused(errors.METHOD_NOT_FOUND)
        answer = await call(user, msgspec.json.decode(params) if params else None)
        return msgspec.Raw(msgspec.json.encode(answer))
