"""Mending: what a channel's announcements did not bring is read from its log, and clients stay connected.

An announcement can get lost: a link breaks, a buffer overflows. A lost one shows as a jump in offsets, as a
link that was replaced, or, if it was a channel's last, in nothing at all; so each channel's top is looked at
now and then too. Only where the log itself no longer reaches back, or is another one, somebody has to be
told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from typing import Any

import structlog

from tocsin_server.core.channel import Channel
from tocsin_server.core.channel_names import ChannelRules
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import Broker, HistoryQuery
from tocsin_server.protocol.messages import Position

PAGE = 1000
"""Publications read at a time, so that a long log does not stall the loop or fill memory."""

TOP_CHECK_SECONDS = 10.0
"""How often each channel's log is looked at: one short read, for a loss that nothing else would show."""

TOP_CHECK_STEP_SECONDS = 0.1
"""The looks are spread over a round, in steps of this length."""

log = structlog.get_logger()


class Backfill:
    """Mends channels of one node, each by one task at a time.

    `channels` is the hub's index, `spawn` runs a coroutine that belongs to nobody's call, `on_mended(channel,
    count)` is called after publications were put in, `on_broken(channel, position)` where the log cannot
    mend: what follows begins after `position`.
    """

    def __init__(
        self,
        broker: Broker,
        rules: ChannelRules,
        channels: dict[str, Channel[Any]],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        on_mended: Callable[[Channel[Any], int], None],
        on_broken: Callable[[Channel[Any], Position], None],
    ) -> None:
        self._broker = broker
        self._rules = rules
        self._channels = channels
        self._spawn = spawn
        self._on_mended = on_mended
        self._on_broken = on_broken
        self._under_way: set[Channel[Any]] = set()
        self._again: set[Channel[Any]] = set()

    def request(self, channel: Channel[Any]) -> None:
        """Read what this channel missed. If that is under way, look once more afterwards."""
        if channel in self._under_way:
            self._again.add(channel)
        elif channel.tracker.is_known and self._keeps_log(channel):
            self._under_way.add(channel)
            self._spawn(self._run(channel))

    def request_all(self, names: Collection[str]) -> None:
        """Read what these channels missed: their link was replaced."""
        for name in names:
            if (channel := self._channels.get(name)) is not None:
                self.request(channel)

    async def check_tops(self) -> None:
        """Look at each channel's log every PATROL_SECONDS, for good: only so a lost last one shows."""
        steps = round(TOP_CHECK_SECONDS / TOP_CHECK_STEP_SECONDS)
        while True:
            names = list(self._channels)
            for step in range(steps):
                self.request_all(names[step::steps])
                await asyncio.sleep(TOP_CHECK_STEP_SECONDS)

    async def _run(self, channel: Channel[Any]) -> None:
        try:
            while await self._mend_page(channel) or channel in self._again:
                self._again.discard(channel)
        finally:
            self._under_way.discard(channel)
            self._again.discard(channel)

    def _keeps_log(self, channel: Channel[Any]) -> bool:
        options = self._rules.options_for(channel.name)
        return options is not None and options.keeps_history

    async def _mend_page(self, channel: Channel[Any]) -> bool:
        """Put in one page; True if there may be more."""
        options = self._rules.options_for(channel.name)
        if options is None:
            return False
        since = channel.tracker.position
        history = await self._broker.read_history(channel.name, HistoryQuery(since, PAGE), options)
        is_another_log = history.top.epoch != since.epoch or history.top.offset < since.offset
        if is_another_log:
            history = await self._broker.read_history(channel.name, HistoryQuery(limit=PAGE), options)
            # A newcomer's reading may have settled it meanwhile, and this node hears the other log already.
            is_another_log = not channel.tracker.position.epoch == history.top.epoch != since.epoch
        if self._channels.get(channel.name) is not channel:
            return False  # nobody here hears it any more
        self._put_in(channel, history, is_another_log)
        offset, epoch = channel.tracker.position
        return epoch != history.top.epoch or offset < history.top.offset

    def _put_in(self, channel: Channel[Any], history: History, is_another_log: bool) -> None:
        heard = -1 if is_another_log else channel.tracker.offset
        missed = [publication for publication in history.publications if publication.offset > heard]
        before = missed[0].offset - 1 if missed else history.top.offset
        if is_another_log or before > heard:
            self._break(channel, Position(before, history.top.epoch))
        for publication in missed:
            channel.receive(publication, history.top.epoch)
        if missed:
            log.info("mended from the log", channel=channel.name, publications=len(missed))
            self._on_mended(channel, len(missed))

    def _break(self, channel: Channel[Any], position: Position) -> None:
        log.warning("the log cannot mend", channel=channel.name, heard=channel.tracker.position, log=position)
        self._on_broken(channel, position)
