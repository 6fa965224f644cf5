"""Whatever the order of hearing, losing, reading, entering, leaving and writing, nobody misses anything.

A machine drives one hub's channel as a node would: publications travel on a link that may lose them, the log
is read at one moment and the answer arrives at another, and batches are written member by member.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.server.core.recording_connection import RecordingConnection, StoredHistory
from tocsin_server.core.channel import Channel, SubscriberConnection
from tocsin_server.core.hub import Hub
from tocsin_server.core.positions import Continuity, History
from tocsin_server.protocol.messages import Publication

picks = st.integers(min_value=0, max_value=99)
HISTORY_SIZE = 4
"""Short, so that logs are trimmed under those who read them."""


class Interleavings(RuleBasedStateMachine):
    """One channel, any number of peers."""

    def __init__(self) -> None:
        super().__init__()
        self.hub: Hub[RecordingConnection] = Hub()
        self.log = StoredHistory(HISTORY_SIZE)
        self.link: deque[Publication] = deque()
        self.entering: dict[RecordingConnection, History | None] = {}
        self.live: dict[RecordingConnection, int | None] = {}
        """Where each began; None for one without a position, which begins with the next it hears."""
        self.gone: list[tuple[RecordingConnection, int]] = []
        self.round: Iterator[None] = iter(())

    # ----------------------------------------------------------------------------------------------- the link

    @rule(count=st.integers(min_value=1, max_value=6))
    def publish(self, count: int) -> None:
        self.link.extend(self.log.append() for _ in range(count))

    @precondition(lambda self: self.link)
    @rule()
    def lose(self) -> None:
        self.link.popleft()

    @precondition(lambda self: self.link)
    @rule()
    def hear(self) -> None:
        publication = self.link.popleft()
        channel = self.hub.channels.get("news")
        if channel is not None and channel.receive(publication, self.log.epoch) is Continuity.GAP:
            self._mend(channel)

    @rule()
    def check_top(self) -> None:
        channel = self.hub.channels.get("news")
        if channel is not None and channel.tracker.is_known and channel.tracker.offset < self.log.top:
            self._mend(channel)

    def _mend(self, channel: Channel[Any]) -> None:
        missed = self.log.read(channel.tracker.offset)
        if missed.publications[:1] and missed.publications[0].offset == channel.tracker.offset + 1:
            for publication in missed.publications:
                channel.receive(publication, self.log.epoch)
            return
        for peer in channel.reset(missed.top):
            self._break(peer)

    def _break(self, peer: SubscriberConnection) -> None:
        assert isinstance(peer, RecordingConnection)
        if self.live[peer] in (None, -1):
            self.live[peer] = -1  # hears on behind the hole: only the order is still certain
        else:
            self._leave(peer)

    # --------------------------------------------------------------------------------------- coming and going

    @precondition(lambda self: len(self.entering) < 4)
    @rule()
    def enter(self) -> None:
        self.hub.begin_subscribe("news")
        self.entering[RecordingConnection()] = None

    @precondition(lambda self: self.entering)
    @rule(pick=picks, behind=st.integers(min_value=0, max_value=3))
    def read(self, pick: int, behind: int) -> None:
        ear = self._pick(self.entering, pick)
        self.entering[ear] = self.log.read(max(0, self.log.top - behind))

    @precondition(lambda self: any(self.entering.values()))
    @rule(pick=picks)
    def admit(self, pick: int) -> None:
        ear = self._pick([ear for ear, history in self.entering.items() if history], pick)
        history = self.entering[ear]
        channel = self.hub.channels["news"]
        assert history is not None
        merged = channel.merge(history)
        if merged is None:
            self.entering[ear] = None  # and is read again
            return
        offsets = [publication.offset for publication in merged.publications]
        assert offsets == list(range(merged.top.offset - len(offsets) + 1, merged.top.offset + 1))
        del self.entering[ear]
        self.live[ear] = merged.top.offset
        channel.go_live(ear, merged.top.offset, receives_joins=False)

    @precondition(lambda self: self.entering)
    @rule(pick=picks)
    def admit_without_a_position(self, pick: int) -> None:
        ear = self._pick(self.entering, pick)
        del self.entering[ear]
        self.live[ear] = None
        self.hub.channels["news"].go_live(ear, 0, receives_joins=False)

    @precondition(lambda self: self.live)
    @rule(pick=picks)
    def leave(self, pick: int) -> None:
        self._leave(self._pick(self.live, pick))

    @precondition(lambda self: self.entering)
    @rule(pick=picks)
    def leave_before_admission(self, pick: int) -> None:
        ear = self._pick(self.entering, pick)
        del self.entering[ear]
        self.hub.unsubscribe(ear, "news")
        self.gone.append((ear, 0))

    def _leave(self, ear: RecordingConnection) -> None:
        self._check(ear, self.live.pop(ear))
        self.hub.unsubscribe(ear, "news")
        self.gone.append((ear, len(ear.received)))

    def _pick(self, ears: object, pick: int) -> RecordingConnection:
        chosen = list(ears)  # type: ignore[call-overload]
        ear = chosen[pick % len(chosen)]
        assert isinstance(ear, RecordingConnection)
        return ear

    # ------------------------------------------------------------------------------------------------ writing

    @rule()
    def write_one(self) -> None:
        if next(self.round, self) is self and (channel := self.hub.channels.get("news")):
            self.round = self._write_batch(channel)

    def _write_batch(self, channel: Channel[Any]) -> Iterator[None]:
        if channel.has_queued:
            batch = channel.take_batch()
            for framing, members, items in batch.recipients:
                payload = framing.pack("news", items)
                for member in members:
                    yield
                    member.write(payload)

    def _write_everything(self) -> None:
        channel = self.hub.channels.get("news")
        for _ in self.round:
            pass
        while channel is not None and channel.has_queued:
            for _ in self._write_batch(channel):
                pass

    # --------------------------------------------------------------------------------------------- what holds

    def _check(self, ear: RecordingConnection, start: int | None) -> None:
        heard = [offset for offset in ear.received if isinstance(offset, int)]
        if start == -1:
            assert heard == sorted(set(heard))
        elif heard:
            first = heard[0] if start is None else start + 1
            assert heard == list(range(first, first + len(heard)))

    @invariant()
    def everybody_hears_everything_once_and_in_order(self) -> None:
        for ear, start in self.live.items():
            self._check(ear, start)

    @invariant()
    def nobody_hears_anything_after_leaving(self) -> None:
        assert [len(ear.received) for ear, _ in self.gone] == [count for _, count in self.gone]

    @invariant()
    def the_hub_knows_exactly_who_is_there(self) -> None:
        channel = self.hub.channels.get("news")
        assert (channel is not None) == bool(self.live or self.entering)
        if channel is not None:
            assert set(channel.connections) == set(self.live)
            assert len(channel) == len(self.live)

    def teardown(self) -> None:
        """In the end everybody has heard up to the top, and when all have left nothing remains."""
        while self.link:
            self.hear()
        self.check_top()
        self._write_everything()
        for ear, start in list(self.live.items()):
            self._check(ear, start)
            if start is not None and start >= 0:
                assert start + len(ear.received) == self.log.top
            self._leave(ear)
        for ear in list(self.entering):
            self.hub.unsubscribe(ear, "news")
        assert not self.hub.channels


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
