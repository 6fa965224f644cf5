"""A channel's history, compared with a model that keeps all publications and computes which are left."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Raw

from tocsin_server.config.channel_options import ChannelOptions
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


class ChannelHistoryModel(RuleBasedStateMachine):
    """The model removes nothing until it is read, and then filters plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.history = ChannelHistory("abcdefgh", ChannelOptions())
        self.entries: list[Entry] = []
        self.top = 0
        self.versions = [("", 0)]
        self.publications_expire_at = float("inf")
        self.top_expires_at = float("inf")

    @rule(seconds=st.sampled_from([0.5, 1, 2, 5, 11]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(options=OPTIONS, version=st.integers(0, 4), version_epoch=st.sampled_from(["", "a", "b"]))
    def append(self, options: ChannelOptions, version: int, version_epoch: str) -> None:
        data = b"%d" % self.top
        publication = NewPublication(Raw(data), version=version, version_epoch=version_epoch)
        self.history.use_options(options)
        top, stored = self.history.append(publication, self.now)
        self.top_expires_at = self.now + options.history_meta_ttl
        last_epoch, last_version = self.versions[-1]
        if version and version_epoch in ("", last_epoch) and version <= last_version:
            assert stored is None
            assert top.offset == self.top
            return
        if version:
            self.versions.append((version_epoch, version))
        self.top += 1
        self.entries = [*self.kept(), Entry(self.top, data)][-options.history_size :]
        self.publications_expire_at = self.now + options.history_ttl
        assert stored
        assert top.offset == self.top
        assert (stored.offset, bytes(stored.data)) == self.entries[-1]

    @rule(options=OPTIONS, query=QUERIES)
    def read(self, options: ChannelOptions, query: HistoryQuery) -> None:
        entries = self.kept()[::-1] if query.is_reverse else self.kept()
        if query.since:
            bound = query.since.offset
            entries = [e for e in entries if (e.offset < bound if query.is_reverse else e.offset > bound)]
        if query.limit >= 0:
            entries = entries[: query.limit]
        history = self.history.read(query, options, self.now)
        self.top_expires_at = self.now + options.history_meta_ttl
        assert history.top == Position(self.top, "abcdefgh")
        assert [Entry(each.offset, bytes(each.data)) for each in history.publications] == entries

    @rule()
    def remove_history(self) -> None:
        self.history.clear()
        self.entries = []

    @rule()
    def memory_is_freed(self) -> None:
        self.history.drop_expired(self.now)
        assert len(self.history._kept) == len(self.kept())

    @invariant()
    def the_top_and_the_expiry_equal_the_model(self) -> None:
        assert self.history.top == Position(self.top, "abcdefgh")
        assert self.history.is_expired(self.now) == (self.now >= self.top_expires_at)

    def kept(self) -> list[Entry]:
        return self.entries if self.now < self.publications_expire_at else []


TestChannelHistory = ChannelHistoryModel.TestCase
TestChannelHistory.settings = settings(max_examples=60)  # of up to 50 steps each
