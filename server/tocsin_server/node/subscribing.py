"""Entering channels: nothing may fall between what their log holds and what is heard live.

hold what is heard -> listen -> be present -> read the log -> merge both
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from tocsin_server.core.channel import Channel
from tocsin_server.core.events import HistoryRead, SubscriptionPlan, SubscriptionsOpened
from tocsin_server.core.hub import Hub
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import TOP_ONLY, HistoryQuery
from tocsin_server.engine.engine import EngineServices
from tocsin_server.errors import EngineError
from tocsin_server.protocol.messages import Position

REREADS = 5
"""How often a log is read that does not reach what was heard meanwhile. Only loss takes a second."""

Result = TypeVar("Result")


class SubscriptionSetup:
    """Enters channels on behalf of sessions.

    `on_broken(channel, position)` is called where the log turns out to be another one than was heard so far.
    """

    def __init__(
        self, engine: EngineServices, hub: Hub[Any], on_broken: Callable[[Channel[Any], Position], None]
    ) -> None:
        self._engine = engine
        self._hub = hub
        self._on_broken = on_broken

    async def open(self, entries: Sequence[SubscriptionPlan]) -> SubscriptionsOpened:
        """Enter channels that the hub has been told of. Raises EngineError.

        The session is to be told in the same step: nothing may be awaited between the return and that.
        """
        engine = self._engine
        await gather_calls(engine.broker.subscribe(entry.channel) for entry in entries)
        await gather_calls(
            engine.presence.add(entry.channel, entry.info, is_announced=entry.options.join_leave)
            for entry in entries
            if entry.options.presence
        )
        to_read = [entry for entry in entries if entry.read is not None]
        for _ in range(REREADS):
            histories = await gather_calls(self._read(entry) for entry in to_read)
            merged: dict[str, History | None] = {entry.channel: None for entry in entries}
            for entry, history in zip(to_read, histories, strict=True):
                merged[entry.channel] = self._merge(entry.channel, history)
            if all(merged[entry.channel] is not None for entry in to_read):
                return SubscriptionsOpened(merged)
        raise EngineError("the log does not reach what was heard")

    async def _read(self, entry: SubscriptionPlan) -> History:
        query = TOP_ONLY if entry.read is None else _query(entry.read)
        history = await self._engine.broker.read_history(entry.channel, query, entry.options)
        return History(history.top, history.publications[::-1]) if query.is_reverse else history

    def _merge(self, name: str, history: History) -> History | None:
        channel = self._hub.channels[name]
        if channel.tracker.is_known and channel.tracker.position.epoch != history.top.epoch:
            self._on_broken(channel, history.top)
        return channel.merge(history)


async def gather_calls(calls: Iterable[Awaitable[Result]]) -> list[Result]:
    """Await calls that may go out together; for one, without the cost of a task."""
    awaitables = list(calls)
    if len(awaitables) == 1:
        return [await awaitables[0]]
    return await asyncio.gather(*awaitables)


def _query(read: HistoryRead) -> HistoryQuery:
    if read.is_latest:
        return HistoryQuery(limit=1, is_reverse=True)
    return TOP_ONLY if read.since is None else HistoryQuery(read.since, read.limit)
