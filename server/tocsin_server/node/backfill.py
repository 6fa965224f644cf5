"""Backfill: publications that the pub/sub connection lost are read from history; clients stay connected.

A lost publication shows as a jump in offsets or as a pub/sub connection that was replaced. If it was the last
of its channel, nothing shows; so each channel's top is checked now and then. Clients are told only where
history no longer reaches back, or is another one.

The mutable state is which channels are being read and which must be read again; only `Backfill` changes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Generic

from msgspec.structs import astuple

from tocsin_server.core.channel import Channel
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.node_state import C, NodeState
from tocsin_server.core.positions import is_other_history
from tocsin_server.engine.broker import Broker, HistoryQuery
from tocsin_server.node.sampled_log import SampledLog

PAGE_SIZE = 1000
"""Publications read at a time, so that a long history neither stalls the event loop nor fills memory."""

TOP_CHECK_SECONDS = 10.0
"""How often each channel's top is checked: one short read, for a loss that nothing else would show."""

TOP_CHECK_STEP_SECONDS = 0.1
"""The checks are spread over a round, in steps of this length."""


class Backfill(Generic[C]):
    """Fills channels of one node from history, each by one task at a time.

    `spawn` runs a coroutine as a task of the node. `on_backfilled(channel, count)` is called after
    publications were added; `on_reset(connection, channel)` for each connection that misses publications
    which history no longer holds.
    """

    def __init__(
        self,
        broker: Broker,
        rules: ChannelRules,
        state: NodeState[C],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        on_backfilled: Callable[[Channel[C], int], None],
        on_reset: Callable[[C, str], None],
    ) -> None:
        self._broker = broker
        self._rules = rules
        self._state = state
        self._spawn = spawn
        self._on_backfilled = on_backfilled
        self._on_reset = on_reset
        self._log = SampledLog()
        self._in_progress: set[Channel[C]] = set()
        self._again: set[Channel[C]] = set()

    def request(self, channel: Channel[C]) -> None:
        """Read what this channel missed; once more afterwards, if it is being read already."""
        if channel in self._in_progress:
            self._again.add(channel)
        elif channel.tracker.is_known and self._keeps_history(channel):
            self._in_progress.add(channel)
            self._spawn(self._run(channel))

    def request_all(self, names: Collection[str]) -> None:
        """Read what these channels missed: their pub/sub connection was replaced."""
        for name in names:
            if (channel := self._state.hub.channels.get(name)) is not None:
                self.request(channel)

    async def check_tops(self) -> None:
        """Check each channel's top every TOP_CHECK_SECONDS, until cancelled."""
        steps = round(TOP_CHECK_SECONDS / TOP_CHECK_STEP_SECONDS)
        while True:
            names = list(self._state.hub.channels)
            for step in range(steps):
                self.request_all(names[step::steps])
                await asyncio.sleep(TOP_CHECK_STEP_SECONDS)

    async def _run(self, channel: Channel[C]) -> None:
        try:
            while await self._read_page(channel) or channel in self._again:
                self._again.discard(channel)
        finally:
            self._in_progress.discard(channel)
            self._again.discard(channel)

    def _keeps_history(self, channel: Channel[C]) -> bool:
        options = self._rules.options_for(channel.name)
        return options is not None and options.keeps_history

    async def _read_page(self, channel: Channel[C]) -> bool:
        """Add one page to a channel. Returns whether there is more."""
        options = self._rules.options_for(channel.name)
        if options is None:
            return False
        since, replaced = channel.tracker.position, None
        history = await self._broker.read_history(
            channel.name, HistoryQuery(since, PAGE_SIZE, keeps_epoch=True), options
        )
        if is_other_history(since, history.top):
            replaced = since
            history = await self._broker.read_history(channel.name, HistoryQuery(limit=PAGE_SIZE), options)
        if self._state.hub.channels.get(channel.name) is not channel:
            return False  # the last subscriber left meanwhile
        added = self._state.backfill(channel, history, replaced)
        if added.gap is not None:
            after, up_to = map(astuple, added.gap)
            self._log.write("history_gap", level="warning", channel=channel.name, after=after, up_to=up_to)
        for connection in added.resets:
            self._on_reset(connection, channel.name)
        if added.publication_count:
            self._log.write("publications_backfilled", channel=channel.name, count=added.publication_count)
            self._on_backfilled(channel, added.publication_count)
        return not added.is_complete
