"""One channel's log: the publications it still keeps, and the top that outlives them.

The times it is given as `now` are seconds of one monotonic clock.
"""

from __future__ import annotations

import math

from tocsin_server.config.options import ChannelOptions
from tocsin_server.core.positions import History
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.protocol.messages import Position, Publication


class Log:
    """Offsets 1, 2, 3 … within one epoch, of which the last `history_size` are kept (protocol §10).

    What is kept lapses together, `history_ttl` after the last publish; the top and the last version stay. The
    whole log is over once nobody has read or written it for `history_meta_ttl`: then its owner replaces it by
    one of another epoch.
    """

    __slots__ = ("_epoch", "_kept", "_kept_until", "_known_until", "_offset", "_version", "_version_epoch")

    def __init__(self, epoch: str) -> None:
        self._epoch = epoch
        self._offset = 0
        self._version = 0
        self._version_epoch = ""
        self._kept_until = math.inf
        self._known_until = math.inf
        self._kept: dict[int, Publication] = {}  # by offset, without holes, up to the top

    @property
    def top(self) -> Position:
        """The position of the last publication, also of one that is no longer kept."""
        return Position(self._offset, self._epoch)

    def is_over(self, now: float) -> bool:
        """Whether the log has been left alone for so long that its top is forgotten."""
        return now >= self._known_until

    def append(self, draft: NewPublication, options: ChannelOptions, now: float) -> Publication | None:
        """Give a draft the next offset and keep it; None if its version is outdated."""
        self._use(options, now)
        if self._is_outdated(draft):
            return None
        self._offset += 1
        publication = Publication(draft.data, self._offset, draft.info, draft.tags)
        self._kept[self._offset] = publication
        while len(self._kept) > options.history_size:
            del self._kept[self._oldest]
        self._kept_until = now + options.history_ttl
        return publication

    def read(self, query: HistoryQuery, options: ChannelOptions, now: float) -> History:
        """What the query asks for of what is kept at `now`."""
        self._use(options, now)
        return History(self.top, [self._kept[offset] for offset in self._offsets(query)])

    def remove_history(self) -> None:
        """Drop what is kept; the top stays."""
        self._kept.clear()

    def drop_lapsed(self, now: float) -> None:
        """Free what nobody can read any more."""
        if now >= self._kept_until:
            self.remove_history()

    @property
    def _oldest(self) -> int:
        """The first offset that is kept, or the next one to come."""
        return self._offset - len(self._kept) + 1

    def _use(self, options: ChannelOptions, now: float) -> None:
        self.drop_lapsed(now)
        self._known_until = now + options.history_meta_ttl

    def _is_outdated(self, draft: NewPublication) -> bool:
        if not draft.version:
            return False
        is_comparable = draft.version_epoch in ("", self._version_epoch)
        if is_comparable and draft.version <= self._version:
            return True
        self._version, self._version_epoch = draft.version, draft.version_epoch
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
