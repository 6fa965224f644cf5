"""One channel under every order of receive, loss, history read, subscribe, unsubscribe and delivery.

The machine drives a channel as a node does: publications travel over a pub/sub connection that may lose them,
history is read at one moment and merged at another, and batches are delivered subscriber by subscriber.
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
"""Small, so that history is often trimmed before it is read."""


class Interleavings(RuleBasedStateMachine):
    """One channel with any number of subscribers."""

    def __init__(self) -> None:
        super().__init__()
        self.hub: Hub[RecordingConnection] = Hub()
        self.history = StoredHistory(HISTORY_SIZE)
        self.pubsub: deque[Publication] = deque()
        self.subscribing: dict[RecordingConnection, History | None] = {}
        self.live: dict[RecordingConnection, int | None] = {}
        """The offset at which each began. None: without a position. -1: the same, and after a reset."""
        self.ended: list[tuple[RecordingConnection, int]] = []
        self.batch: Iterator[None] = iter(())

    # ------------------------------------------------------------------------------------------------ pub/sub

    @rule(count=st.integers(min_value=1, max_value=6))
    def publish(self, count: int) -> None:
        self.pubsub.extend(self.history.append() for _ in range(count))

    @precondition(lambda self: self.pubsub)
    @rule()
    def lose_publication(self) -> None:
        self.pubsub.popleft()

    @precondition(lambda self: self.pubsub)
    @rule()
    def receive(self) -> None:
        publication = self.pubsub.popleft()
        channel = self.hub.channels.get("news")
        if channel is not None and channel.receive(publication, self.history.epoch) is Continuity.AHEAD:
            self._backfill(channel)

    @rule()
    def check_top(self) -> None:
        channel = self.hub.channels.get("news")
        if channel is not None and channel.tracker.is_known and channel.tracker.offset < self.history.top:
            self._backfill(channel)

    def _backfill(self, channel: Channel[Any]) -> None:
        missed = self.history.read(channel.tracker.offset)
        if missed.publications[:1] and missed.publications[0].offset == channel.tracker.offset + 1:
            for publication in missed.publications:
                channel.receive(publication, self.history.epoch)
            return
        for connection in channel.reset(missed.top):
            self._reset(connection)

    def _reset(self, connection: SubscriberConnection) -> None:
        assert isinstance(connection, RecordingConnection)
        if self.live[connection] in (None, -1):
            self.live[connection] = -1  # it continues after the gap, so only the order can be checked
        else:
            self._unsubscribe(connection)

    # ------------------------------------------------------------------------------ subscribe and unsubscribe

    @precondition(lambda self: len(self.subscribing) < 4)
    @rule()
    def begin_subscribe(self) -> None:
        self.hub.begin_subscribe("news")
        self.subscribing[RecordingConnection()] = None

    @precondition(lambda self: self.subscribing)
    @rule(pick=picks, behind=st.integers(min_value=0, max_value=3))
    def read_history(self, pick: int, behind: int) -> None:
        connection = self._pick(self.subscribing, pick)
        self.subscribing[connection] = self.history.read(max(0, self.history.top - behind))

    @precondition(lambda self: any(self.subscribing.values()))
    @rule(pick=picks)
    def go_live(self, pick: int) -> None:
        connection = self._pick(
            [connection for connection, history in self.subscribing.items() if history], pick
        )
        history = self.subscribing[connection]
        channel = self.hub.channels["news"]
        assert history is not None
        merged = channel.merge(history)
        if merged is None:
            self.subscribing[connection] = None  # it must be read again
            return
        offsets = [publication.offset for publication in merged.publications]
        assert offsets == list(range(merged.top.offset - len(offsets) + 1, merged.top.offset + 1))
        del self.subscribing[connection]
        self.live[connection] = merged.top.offset
        channel.go_live(connection, merged.top.offset, receives_joins=False)

    @precondition(lambda self: self.subscribing)
    @rule(pick=picks)
    def go_live_without_a_position(self, pick: int) -> None:
        connection = self._pick(self.subscribing, pick)
        del self.subscribing[connection]
        self.live[connection] = None
        self.hub.channels["news"].go_live(connection, 0, receives_joins=False)

    @precondition(lambda self: self.live)
    @rule(pick=picks)
    def unsubscribe(self, pick: int) -> None:
        self._unsubscribe(self._pick(self.live, pick))

    @precondition(lambda self: self.subscribing)
    @rule(pick=picks)
    def cancel_subscribe(self, pick: int) -> None:
        connection = self._pick(self.subscribing, pick)
        del self.subscribing[connection]
        self.hub.unsubscribe(connection, "news")
        self.ended.append((connection, 0))

    def _unsubscribe(self, connection: RecordingConnection) -> None:
        self._check(connection, self.live.pop(connection))
        self.hub.unsubscribe(connection, "news")
        self.ended.append((connection, len(connection.received)))

    def _pick(self, connections: object, pick: int) -> RecordingConnection:
        chosen = list(connections)  # type: ignore[call-overload]
        connection = chosen[pick % len(chosen)]
        assert isinstance(connection, RecordingConnection)
        return connection

    # ----------------------------------------------------------------------------------------------- delivery

    @rule()
    def deliver_one(self) -> None:
        if next(self.batch, self) is self and (channel := self.hub.channels.get("news")):
            self.batch = self._write_batch(channel)

    def _write_batch(self, channel: Channel[Any]) -> Iterator[None]:
        if channel.has_queued:
            batch = channel.take_batch()
            for framing, subscribers, messages in batch.recipients:
                payload = framing.pack("news", messages)
                for subscriber in subscribers:
                    yield
                    subscriber.write(payload)

    def _deliver_everything(self) -> None:
        channel = self.hub.channels.get("news")
        for _ in self.batch:
            pass
        while channel is not None and channel.has_queued:
            for _ in self._write_batch(channel):
                pass

    # --------------------------------------------------------------------------------------------- invariants

    def _check(self, connection: RecordingConnection, start: int | None) -> None:
        offsets = [offset for offset in connection.received if isinstance(offset, int)]
        if start == -1:
            assert offsets == sorted(set(offsets))
        elif offsets:
            first = offsets[0] if start is None else start + 1
            assert offsets == list(range(first, first + len(offsets)))

    @invariant()
    def subscribers_are_delivered_everything_once_and_in_order(self) -> None:
        for connection, start in self.live.items():
            self._check(connection, start)

    @invariant()
    def nothing_is_delivered_after_an_unsubscribe(self) -> None:
        assert [len(connection.received) for connection, _ in self.ended] == [
            count for _, count in self.ended
        ]

    @invariant()
    def the_hub_has_exactly_the_subscribers(self) -> None:
        channel = self.hub.channels.get("news")
        assert (channel is not None) == bool(self.live or self.subscribing)
        if channel is not None:
            assert set(channel.connections) == set(self.live)
            assert len(channel) == len(self.live)

    def teardown(self) -> None:
        """Check that each subscriber has received everything up to the top, and that no state is left."""
        while self.pubsub:
            self.receive()
        self.check_top()
        self._deliver_everything()
        for connection, start in list(self.live.items()):
            self._check(connection, start)
            if start is not None and start >= 0:
                assert start + len(connection.received) == self.history.top
            self._unsubscribe(connection)
        for connection in list(self.subscribing):
            self.hub.unsubscribe(connection, "news")
        assert not self.hub.channels


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=60)
