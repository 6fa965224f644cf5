"""The recorder: after all that happens to sessions, the node and the log, a reader's picture is true.

A model of the event log takes batches, loses replies, is reaped, loses its data or goes back to an earlier
state. A reader that knows only events and their ids follows along.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.config.event_options import RecordedType
from tocsin_server.core import events
from tocsin_server.core.events import Effect, Timestamp
from tocsin_server.core.lifecycle import (
    EventBatch,
    LifecycleEvent,
    SessionRecord,
    WriteOutcome,
    ends_of,
)
from tocsin_server.core.lifecycle_recorder import LifecycleRecorder
from tocsin_server.core.session import Session
from tocsin_server.errors import SLOW
from tocsin_server.protocol.messages import ClientInfo

ALL = get_args(RecordedType)
NOW = Timestamp(1.0, 1_700_000_000.0)
CHANNELS = st.sampled_from(["a", "b", "c"])


@dataclass
class FakeSession:
    """What the recorder asks a session."""

    client: str
    user: str = "u"
    has_connected: bool = True
    is_closed: bool = False
    channels: set[str] = field(default_factory=set)

    def misses_cache(self, channel: str, history: object) -> bool:
        return False


@dataclass
class LogModel:
    """What the store knows; `told` is everything that readers got, in order."""

    sessions: dict[str, SessionRecord] = field(default_factory=dict)
    channels: set[str] = field(default_factory=set)
    last_batch: int = 0
    epoch: int = 1
    is_dead: bool = False


class Reader:
    """A subscriber's picture, from events alone. It ignores an event with an id that it had before."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.sequences: dict[str, int] = {}
        self.sessions: dict[str, set[str]] = {}
        self.channels: set[str] = set()

    def take(self, event: LifecycleEvent) -> None:
        if event.type == "state_lost":
            self.channels.clear()
            return
        if event.id in self.ids:
            return
        self.ids.add(event.id)
        if event.client:
            self._take_of_session(event)
        elif event.type == "occupied":
            assert event.channel not in self.channels, "occupied twice"
            self.channels.add(event.channel)
        else:
            assert event.channel in self.channels, "vacated without occupied"
            self.channels.discard(event.channel)

    def _take_of_session(self, event: LifecycleEvent) -> None:
        assert event.sequence > self.sequences.get(event.client, 0), "out of order"
        self.sequences[event.client] = event.sequence
        if event.type == "connected":
            assert event.client not in self.sessions, "connected twice"
            self.sessions[event.client] = set()
            return
        channels = self.sessions.get(event.client)
        assert channels is not None, f"{event.type} of a session that is not connected"
        if event.type == "subscribed":
            assert event.channel not in channels
            channels.add(event.channel)
        elif event.type == "unsubscribed":
            channels.remove(event.channel)
        else:
            assert not channels, "disconnected while subscribed"
            del self.sessions[event.client]


def recorder_of(waiting_bytes: int, types: Sequence[RecordedType] = ALL) -> LifecycleRecorder:
    return LifecycleRecorder(types, lambda _channel: True, "node", "uid", waiting_bytes)


class Machine(RuleBasedStateMachine):
    """One node, its log, and a reader."""

    waiting_bytes = 1_000_000

    def __init__(self) -> None:
        super().__init__()
        self.recorder = recorder_of(self.waiting_bytes)
        self.live: dict[str, FakeSession] = {}
        self.ended = 0
        self.log = LogModel()
        self.reader = Reader()
        self.snapshot = copy.deepcopy(self.log)
        self.has_lost = False

    def observe(self, session: FakeSession, *effects: Effect) -> None:
        opened = events.SubscriptionsOpened({})
        self.recorder.observe(cast("Session", session), "websocket", opened, effects, NOW)

    @rule()
    def connect(self) -> None:
        session = FakeSession(f"c{len(self.live) + self.ended}")
        self.live[session.client] = session
        self.observe(session)

    @rule(number=st.integers(0, 5), channel=CHANNELS)
    def subscribe_or_unsubscribe(self, number: int, channel: str) -> None:
        if number >= len(self.live):
            return
        session = list(self.live.values())[number]
        if channel in session.channels:
            session.channels.discard(channel)
            self.observe(session, closed(session, channel))
        else:
            session.channels.add(channel)
            self.observe(session, events.GoLive(channel))

    @rule(number=st.integers(0, 5))
    def disconnect(self, number: int) -> None:
        if number >= len(self.live):
            return
        session = self.live.pop(list(self.live)[number])
        self.ended += 1
        session.is_closed = True
        self.observe(session, events.Close(SLOW), *(closed(session, one) for one in session.channels))

    @rule()
    def write(self) -> None:
        self._settle(self._written(self.recorder.next_batch()))

    @rule(is_carried_out=st.booleans())
    def write_without_a_reply(self, is_carried_out: bool) -> None:
        batch = self.recorder.next_batch()
        if is_carried_out:
            self._written(batch)

    @rule()
    def reap(self) -> None:
        """Other nodes take this one for dead. Not while a loss of data is not known yet (docs/events.md)."""
        if not self.log.is_dead and not self.has_lost:
            self.log.is_dead = True
            self._end_all(())

    @rule()
    def lose_all_data(self) -> None:
        if not self.log.is_dead:
            self.log = LogModel(epoch=0)
            self.has_lost = True

    @rule()
    def take_a_snapshot(self) -> None:
        self.snapshot = copy.deepcopy(self.log)

    @rule()
    def go_back_to_the_snapshot(self) -> None:
        if not self.log.is_dead and self.snapshot.epoch == self.log.epoch:
            self.log = copy.deepcopy(self.snapshot)
            self.has_lost = True

    def _written(self, batch: EventBatch) -> WriteOutcome:
        log = self.log
        if log.is_dead:
            is_written = batch.number <= log.last_batch
            return WriteOutcome.WRITTEN_AND_REAPED if is_written else WriteOutcome.REAPED
        if log.epoch == 0 or batch.number > log.last_batch + 1:
            return WriteOutcome.STATE_LOST
        if batch.number <= log.last_batch:
            return WriteOutcome.WRITTEN
        log.last_batch = batch.number
        for event in batch.events:
            if event.type == "occupied":
                assert event.channel not in log.channels
                log.channels.add(event.channel)
            elif event.type == "vacated":
                log.channels.remove(event.channel)
            self.reader.take(event)
        for client, record in batch.sessions.items():
            if record is None:
                log.sessions.pop(client, None)
            else:
                log.sessions[client] = record
        return WriteOutcome.WRITTEN

    def _settle(self, outcome: WriteOutcome) -> None:
        self.recorder.settle(outcome, NOW)
        if outcome is WriteOutcome.STATE_LOST:
            self.reader.take(LifecycleEvent("state_lost", "lost", 0))
            self.log.channels.clear()
            self._end_all(self.recorder.clients)
        if outcome is not WriteOutcome.WRITTEN:
            self.has_lost = False
            self.log = LogModel(epoch=self.log.epoch + 1)
            self.snapshot = copy.deepcopy(self.log)

    def _end_all(self, live: Any) -> None:
        for client, record in self.log.sessions.items():
            if client not in live:
                for event in ends_of(client, record, "node", 0):
                    self._take_end(event)
        for channel in self.log.channels:
            self.reader.take(LifecycleEvent("vacated", f"v{self.log.epoch}-{channel}", 0, channel=channel))
        self.log.sessions.clear()
        self.log.channels.clear()

    def _take_end(self, event: LifecycleEvent) -> None:
        """Take the end of a session. After a step back, the reader may have had it."""
        if event.client in self.reader.sessions and event.sequence > self.reader.sequences[event.client]:
            channels = self.reader.sessions[event.client]
            if event.type == "disconnected" or event.channel in channels:
                channels.difference_update(channels if event.type == "disconnected" else ())
                self.reader.take(event)

    def teardown(self) -> None:
        """Once all is written, the reader's picture is the truth."""
        for _ in range(20):
            self.write()
            if not self.recorder.has_waiting and self.log.last_batch:
                break
        assert not self.recorder.has_waiting
        channels = [session.channels for session in self.live.values()]
        truth = {client: session.channels for client, session in self.live.items()}
        assert self.reader.sessions == truth
        assert self.reader.channels == set().union(*channels)


def closed(session: FakeSession, channel: str) -> events.CloseSubscription:
    return events.CloseSubscription(channel, ChannelOptions(), ClientInfo(session.user, session.client))


class CrowdedMachine(Machine):
    """The same, where so much waits that pairs are dropped."""

    waiting_bytes = 700


TestRecorder = Machine.TestCase
TestRecorder.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)
TestCrowdedRecorder = CrowdedMachine.TestCase
TestCrowdedRecorder.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)
