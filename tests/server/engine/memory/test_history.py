"""One channel's log against a model that keeps everything and computes what should be left."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Raw

from tocsin_server.config.options import ChannelOptions
from tocsin_server.engine.broker import HistoryQuery, NewPublication
from tocsin_server.engine.memory.history import ChannelHistory
from tocsin_server.protocol.messages import Position

OPTIONS = st.sampled_from(
    [
        ChannelOptions(history_size=size, history_ttl=ttl, history_meta_ttl=meta_ttl)
        for size in (1, 2, 5)
        for ttl in (2, 5)
        for meta_ttl in (5, 11)
    ]
)
SINCE = st.none() | st.builds(Position, st.integers(0, 30), st.sampled_from(["", "abcdefgh"]))
QUERIES = st.builds(HistoryQuery, SINCE, st.integers(-2, 6), st.booleans())


class Entry(NamedTuple):
    """A publication of the model."""

    offset: int
    data: bytes


class LogModel(RuleBasedStateMachine):
    """The model trims nothing until it is asked, and then by filters over plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.log = ChannelHistory("abcdefgh")
        self.entries: list[Entry] = []
        self.top = 0
        self.versions = [("", 0)]
        self.lapses = float("inf")
        self.ends = float("inf")

    @rule(seconds=st.sampled_from([0.5, 1, 2, 5, 11]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(options=OPTIONS, version=st.integers(0, 4), version_epoch=st.sampled_from(["", "a", "b"]))
    def append(self, options: ChannelOptions, version: int, version_epoch: str) -> None:
        data = b"%d" % self.top
        draft = NewPublication(Raw(data), version=version, version_epoch=version_epoch)
        publication = self.log.append(draft, options, self.now)
        self.ends = self.now + options.history_meta_ttl
        last_epoch, last_version = self.versions[-1]
        if version and version_epoch in ("", last_epoch) and version <= last_version:
            assert publication is None
            return
        if version:
            self.versions.append((version_epoch, version))
        self.top += 1
        self.entries = [*self.living(), Entry(self.top, data)][-options.history_size :]
        self.lapses = self.now + options.history_ttl
        assert publication
        assert (publication.offset, bytes(publication.data)) == self.entries[-1]

    @rule(options=OPTIONS, query=QUERIES)
    def read(self, options: ChannelOptions, query: HistoryQuery) -> None:
        entries = self.living()[::-1] if query.is_reverse else self.living()
        if query.since:
            bound = query.since.offset
            entries = [e for e in entries if (e.offset < bound if query.is_reverse else e.offset > bound)]
        if query.limit >= 0:
            entries = entries[: query.limit]
        top, publications = self.log.read(query, options, self.now)
        self.ends = self.now + options.history_meta_ttl
        assert top == (self.top, "abcdefgh")
        assert [Entry(each.offset, bytes(each.data)) for each in publications] == entries

    @rule()
    def remove_history(self) -> None:
        self.log.clear()
        self.entries = []

    @rule()
    def memory_is_freed(self) -> None:
        self.log.drop_expired(self.now)
        assert len(self.log._kept) == len(self.living())

    @invariant()
    def the_top_and_the_end_are_known(self) -> None:
        assert self.log.top == (self.top, "abcdefgh")
        assert self.log.is_expired(self.now) == (self.now >= self.ends)

    def living(self) -> list[Entry]:
        return self.entries if self.now < self.lapses else []


TestLog = LogModel.TestCase
TestLog.settings = settings(max_examples=60)  # of up to 50 steps each
