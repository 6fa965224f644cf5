"""Channel histories in memory: the publications that are kept, and the tops that outlive them.

Every `now` is in seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.positions import History, fitting
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.engine.memory.expiry import ExpiryQueue
from tocsin_server.protocol.messages import Position, Publication

DEADLINE_SECONDS = 1.0
"""For how long the deadlines that one publication sets are those of the publications that follow, too.

Where a deadline turns out to be later, memory that should be freed behind it is freed so much later.
"""


class ChannelHistory:
    """The history of one channel: offsets 1, 2, 3 … within one epoch (docs/protocol.md §10).

    The last `history_size` publications are kept. They expire together, `history_ttl` after the last publish;
    the top and the last version stay. The whole history expires when it has not been read or written for
    `history_meta_ttl`. Its owner then replaces it with one of another epoch.
    """

    __slots__ = (
        *("_epoch", "_kept", "_meta_ttl", "_offset", "_size", "_ttl", "_version", "_version_epoch"),
        *("deadlines_until", "kept_until", "known_until", "options"),
    )

    def __init__(self, epoch: str, options: ChannelOptions) -> None:
        self._epoch = epoch
        self.use_options(options)
        self._offset = 0
        self._version = 0
        self._version_epoch = ""
        self.kept_until = 0.0
        """When the publications expire, if there are any."""
        self.known_until = math.inf
        """When the top has been unused for so long that it no longer counts."""
        self._kept: dict[int, Publication] = {}  # by offset, without holes, up to the top
        self.deadlines_until = 0.0
        """Until when a publication need not set the deadlines at which the store frees memory."""

    @property
    def top(self) -> Position:
        """The position of the last publication, even if it is no longer kept."""
        return Position(self._offset, self._epoch)

    def is_expired(self, now: float) -> bool:
        """Whether the top has been unused for so long that it no longer counts."""
        return now >= self.known_until

    def use_options(self, options: ChannelOptions) -> None:
        """Apply the options of the channel from now on: numbers, which are read faster than options."""
        self.options = options
        self._size, self._ttl = options.history_size, options.history_ttl
        self._meta_ttl = options.history_meta_ttl

    def append(self, publication: NewPublication, now: float) -> tuple[Position, Publication | None]:
        """Give a publication the next offset and keep it. Returns the top, and None if it is outdated."""
        kept = self._kept
        if now >= self.kept_until:
            kept.clear()
        self.known_until = now + self._meta_ttl
        if publication.version and self._is_outdated(publication):
            return self.top, None
        offset = self._offset = self._offset + 1
        stored = kept[offset] = Publication(publication.data, offset, publication.info, publication.tags)
        while len(kept) > self._size:
            del kept[offset - len(kept) + 1]
        self.kept_until = now + self._ttl
        return Position(offset, self._epoch), stored

    def read(self, query: HistoryQuery, options: ChannelOptions, now: float) -> History:
        """Read the part that the query selects from the publications that are kept at `now`."""
        if now >= self.kept_until:
            self.clear()
        self.known_until = now + options.history_meta_ttl
        if not query.limit:
            return History(self.top, [])
        found = (self._kept[offset] for offset in self._offsets(query))
        if not query.limit_bytes:
            return History(self.top, list(found))
        return History(self.top, fitting(found, query.limit_bytes, least=0 if query.may_be_empty else 1))

    def clear(self) -> None:
        """Remove all publications. The top stays."""
        self._kept.clear()

    def drop_expired(self, now: float) -> None:
        """Free the memory of publications that have expired."""
        if now >= self.kept_until:
            self.clear()

    @property
    def _oldest(self) -> int:
        """The first offset that is kept, or the next offset if none is."""
        return self._offset - len(self._kept) + 1

    def _is_outdated(self, publication: NewPublication) -> bool:
        is_comparable = publication.version_epoch in ("", self._version_epoch)
        if is_comparable and publication.version <= self._version:
            return True
        self._version, self._version_epoch = publication.version, publication.version_epoch
        return False

    def _offsets(self, query: HistoryQuery) -> range:
        oldest, newest = self._oldest, self._offset
        if query.is_reverse:
            if query.since:
                newest = min(newest, query.since.offset - 1)
            offsets = range(newest, oldest - 1, -1)
        else:
            if query.since:
                oldest = max(oldest, query.since.offset + 1)
            offsets = range(oldest, newest + 1)
        return offsets if query.limit < 0 else offsets[: query.limit]


class HistoryStore:
    """The histories of all channels. Each exists from its first publication until it expires.

    A history without publications has the initial epoch, which all such histories share. It exists only while
    this node is subscribed to its channel. Readers never see anything that has expired; `free_one` only
    returns its memory. `schedule(deadline)` is called when memory can be freed at a deadline.
    """

    def __init__(self, make_epoch: Callable[[], str], schedule: Callable[[float], None]) -> None:
        self._make_epoch = make_epoch
        self._schedule = schedule
        self._histories: dict[str, ChannelHistory] = {}
        self._initial_epochs: dict[float, tuple[str, float]] = {}  # by history_meta_ttl, with their expiry
        self._publications = ExpiryQueue[str]()  # channels whose history keeps publications
        self._tops = ExpiryQueue[str]()  # all channels

    def __len__(self) -> int:
        return len(self._histories)

    @property
    def next_deadline(self) -> float:
        """When memory can next be freed, or infinity."""
        return min(self._publications.next_deadline, self._tops.next_deadline)

    def append(
        self, channel: str, publication: NewPublication, options: ChannelOptions, now: float
    ) -> tuple[Position, Publication | None] | None:
        """Append to a channel's history. Returns its top, and the publication unless it is outdated.

        None: the channel keeps no history.
        """
        history = self._histories.get(channel)
        if history is None or now >= history.deadlines_until or history.options is not options:
            if not options.keeps_history:
                return None
            history = self._open(channel, options, now)
            history.use_options(options)
            history.deadlines_until = now + min(DEADLINE_SECONDS, options.history_ttl)
            self._publications.set(channel, options.history_ttl, now)
            self._schedule(now + options.history_ttl)  # options.history_meta_ttl is not shorter
        return history.append(publication, now)

    def read(
        self, channel: str, query: HistoryQuery, options: ChannelOptions, now: float, *, is_subscribed: bool
    ) -> History:
        """Read a channel's history. If it does not exist, it is created only if the node is subscribed."""
        history = self._histories.get(channel)
        if not is_subscribed and (history is None or history.is_expired(now)):
            return History(Position(0, self._initial_epoch(options, now)))
        found = self._open(channel, options, now).read(query, options, now)
        self._schedule(now + options.history_meta_ttl)
        return found

    def remove_history(self, channel: str) -> None:
        """Remove the publications of a channel, if there are any."""
        if history := self._histories.get(channel):
            history.clear()

    def drop_unpublished(self, channel: str) -> None:
        """Free the memory of a history that never had a publication: its channel lost its last subscriber."""
        history = self._histories.get(channel)
        if history is not None and not history.top.offset:
            self._tops.cancel(channel)
            self._publications.cancel(channel)
            del self._histories[channel]

    def free_one(self, now: float) -> bool:
        """Free the memory of one expired item. Returns False if there is none."""
        if (channel := self._publications.pop_expired(now, self._kept_until)) is not None:
            self._histories[channel].drop_expired(now)
        elif (channel := self._tops.pop_expired(now, self._known_until)) is not None:
            self._publications.cancel(channel)
            del self._histories[channel]
        return channel is not None

    def _kept_until(self, channel: str) -> float:
        return self._histories[channel].kept_until

    def _known_until(self, channel: str) -> float:
        return self._histories[channel].known_until

    def _open(self, channel: str, options: ChannelOptions, now: float) -> ChannelHistory:
        history = self._histories.get(channel)
        if history is None or history.is_expired(now):
            history = self._histories[channel] = ChannelHistory(self._initial_epoch(options, now), options)
        self._tops.set(channel, options.history_meta_ttl, now)
        return history

    def _initial_epoch(self, options: ChannelOptions, now: float) -> str:
        """The initial epoch. It lives as long as the top of an unused history.

        So when a top has expired, the initial epoch is another one than that in which the history began.
        """
        seconds = options.history_meta_ttl
        epoch, expires_at = self._initial_epochs.get(seconds, ("", 0.0))
        if not epoch or now >= expires_at:
            epoch = self._make_epoch()
            self._initial_epochs[seconds] = epoch, now + seconds
        return epoch
