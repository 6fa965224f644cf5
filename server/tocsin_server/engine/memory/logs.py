"""Logs: those of all channels, each from its first touch until its time is over."""

from __future__ import annotations

from collections.abc import Callable

from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.engine.memory.expiry import Deadlines
from tocsin_server.engine.memory.log import Log
from tocsin_server.protocol.messages import Position, Publication


class Logs:
    """What is lapsed is gone for every reader at once; `free` only gives its memory back."""

    def __init__(self, make_epoch: Callable[[], str]) -> None:
        self._make_epoch = make_epoch
        self._logs: dict[str, Log] = {}
        self._contents = Deadlines[str]()  # of channels whose logs keep something
        self._lives = Deadlines[str]()  # of all channels

    def __len__(self) -> int:
        return len(self._logs)

    @property
    def deadline(self) -> float:
        """When there will be something to free; infinite if never."""
        return min(self._contents.next, self._lives.next)

    def append(
        self, channel: str, draft: NewPublication, options: ChannelOptions, now: float
    ) -> tuple[Position, Publication | None]:
        """Append to a channel's log: its top, and the publication unless it is outdated."""
        log = self._open(channel, options, now)
        publication = log.append(draft, options, now)
        if publication:
            self._contents.put(channel, options.history_ttl, now)
        return log.top, publication

    def read(self, channel: str, query: HistoryQuery, options: ChannelOptions, now: float) -> History:
        """Read a channel's log, which exists from now on."""
        return self._open(channel, options, now).read(query, options, now)

    def remove_history(self, channel: str) -> None:
        """Drop what a channel's log keeps, if there is one."""
        if log := self._logs.get(channel):
            log.remove_history()

    def free(self, now: float) -> bool:
        """Free one lapsed thing; False if there is none."""
        if (channel := self._contents.take(now)) is not None:
            self._logs[channel].drop_lapsed(now)
        elif (channel := self._lives.take(now)) is not None:
            self._contents.cancel(channel)
            del self._logs[channel]
        return channel is not None

    def _open(self, channel: str, options: ChannelOptions, now: float) -> Log:
        log = self._logs.get(channel)
        if log is None or log.is_over(now):
            log = self._logs[channel] = Log(self._make_epoch())
        self._lives.put(channel, options.history_meta_ttl, now)
        return log
