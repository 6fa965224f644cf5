"""A node and its engine without a loop: everything that would be waited for is a job that a test finishes."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec import Raw, Struct

from tests.server.core.checking_client import CheckingClient
from tests.server.core.playbook import START
from tests.server.core.recording_connection import Log
from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.channel import Channel
from tocsin_server.core.events import Effect, Event, SubscriptionPlan, Timestamp
from tocsin_server.core.hub import Hub
from tocsin_server.core.positions import Continuity, History
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import (
    EMPTY,
    PONG,
    HistoryRequest,
    HistoryResult,
    Position,
    PresenceChange,
    PresenceRequest,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    PublishRequest,
    Push,
)

KEPT = 4


@dataclass(eq=False)
class Entrance:
    """Channels being entered: the logs are read at one moment, and merged at another."""

    peer: CheckingClient
    entries: list[SubscriptionPlan]
    reads: dict[str, History | None] | None = None


@dataclass(eq=False)
class Question:
    """A command that the engine is asked."""

    peer: CheckingClient
    ask: events.Execute


class EpochLog(Log):
    """A log whose publications say what they are."""

    def append(self) -> Publication:
        """The next publication; its data is its epoch and offset."""
        self.top += 1
        publication = Publication(Raw(json.dumps([self.epoch, self.top]).encode()), self.top)
        self.kept = [*self.kept, publication][-self.size :]
        return publication


@dataclass
class ModelNode:
    """Carries out effects at once, except what needs the engine."""

    now: Timestamp = START
    hub: Hub[CheckingClient] = field(default_factory=Hub)
    peers: list[CheckingClient] = field(default_factory=list)
    jobs: list[Entrance | Question] = field(default_factory=list)
    link: deque[tuple[str, Publication | Push, str]] = field(default_factory=deque)
    logs: dict[str, EpochLog] = field(default_factory=dict)
    entered: Counter[tuple[CheckingClient, str]] = field(default_factory=Counter)
    """How often each peer entered a channel more than it left it."""
    rounds: list[Iterator[None]] = field(default_factory=list)

    def attach(self, peer: CheckingClient) -> None:
        """A connection was made."""
        self.peers.append(peer)

    def tell(self, peer: CheckingClient, event: Event) -> None:
        """Give a session an event, and do what it asks for."""
        was_closed = peer.session.is_closed
        effects = peer.session.handle(event, self.now)
        for effect in effects:
            assert not was_closed or isinstance(effect, events.CloseSubscription), (
                "a closed session is not silent"
            )
            self._carry_out(peer, effect)
            was_closed = was_closed or isinstance(effect, events.Close)
        assert not was_closed or peer.session.is_closed
        if peer.session.is_closed:
            peer.is_closed = True
            self.hub.remove(peer)

    def _carry_out(self, peer: CheckingClient, effect: Effect) -> None:
        match effect:
            case events.Send(message):
                peer.hear(json.loads(JSON.encode(message)))
            case events.Identify(user):
                self.hub.identify(peer, user)
            case events.OpenSubscriptions(entries):
                for entry in entries:
                    self.entered[peer, entry.channel] += 1
                    assert self.entered[peer, entry.channel] == 1, "entered twice"
                    self.hub.begin_subscribe(entry.channel)
                self.jobs.append(Entrance(peer, list(entries)))
            case events.GoLive(channel, start, receives_joins):
                self.hub.channels[channel].go_live(peer, start, receives_joins)
            case events.PublishJoin(channel, info):
                self.link.append((channel, Push(channel, join=PresenceChange(info)), ""))
            case events.CloseSubscription(channel, _, info, was_announced):
                self.entered[peer, channel] -= 1
                assert self.entered[peer, channel] == 0, "left twice"
                self.hub.unsubscribe(peer, channel)
                if was_announced:
                    self.link.append((channel, Push(channel, leave=PresenceChange(info)), ""))
            case events.Execute():
                self.jobs.append(Question(peer, effect))

    # --------------------------------------------------------------------------------------------- the engine

    def log(self, channel: str) -> EpochLog:
        """A channel's log, made on its first touch."""
        return self.logs.setdefault(channel, EpochLog(KEPT, f"{channel} 1"))

    def replace_log(self, channel: str) -> None:
        """The engine lost the log, and begins another."""
        number = int(self.log(channel).epoch.rpartition(" ")[2]) + 1
        self.logs[channel] = EpochLog(KEPT, f"{channel} {number}")

    def publish(self, channel: str) -> None:
        """Append, if the channel keeps a log, and announce."""
        if channel.startswith(("log:", "cache:")):
            log = self.log(channel)
            self.link.append((channel, log.append(), log.epoch))
        else:
            self.link.append((channel, Publication(Raw(b"1")), ""))

    def finish(self, job: Entrance | Question, succeeds: bool) -> None:
        """One step of a job: an entrance is read first, and then merged and told."""
        if isinstance(job, Question):
            self.jobs.remove(job)
            outcome = self._answer(job.ask) if succeeds else errors.INTERNAL_ERROR
            self.tell(job.peer, events.Executed(job.ask.id, outcome))
        elif not succeeds:
            self.jobs.remove(job)
            self.tell(job.peer, events.SubscriptionsFailed([entry.channel for entry in job.entries]))
        elif job.reads is None:
            job.reads = {entry.channel: self._read(entry) for entry in job.entries}
        else:
            self._merge_and_tell(job, job.reads)

    def _merge_and_tell(self, job: Entrance, reads: Mapping[str, History | None]) -> None:
        merged = {channel: read and self._merge(channel, read) for channel, read in reads.items()}
        if any(merged[channel] is None for channel, read in reads.items() if read):
            job.reads = None  # to be read again
            return
        self.jobs.remove(job)
        self.tell(job.peer, events.SubscriptionsOpened(merged))

    def _merge(self, name: str, read: History) -> History | None:
        channel = self.hub.channels[name]
        if channel.tracker.is_known and channel.tracker.position.epoch != read.top.epoch:
            self._restart(channel, read.top)
        return channel.merge(read)

    def _read(self, entry: SubscriptionPlan) -> History | None:
        if entry.read is None:
            return None
        log = self.log(entry.channel)
        if entry.read.is_latest:
            return History(log.read().top, log.kept[-1:])
        if entry.read.since is None:
            return History(log.read().top)
        read = log.read(entry.read.since.offset)
        return History(read.top, read.publications[: entry.read.limit])

    def _answer(self, ask: events.Execute) -> Struct:
        match ask.request:
            case PublishRequest(channel):
                self.publish(channel)
                return EMPTY
            case HistoryRequest(channel):
                top = self.log(channel).read().top
                return HistoryResult([], top.epoch, top.offset)
            case PresenceRequest():
                return PresenceResult({})
            case _:
                return PresenceStatsResult(0, 0)

    # ------------------------------------------------------------------------------------------------ hearing

    def hear_next(self) -> None:
        """Whatever is next on the link reaches its channel, if anybody here is in it."""
        name, said, epoch = self.link.popleft()
        channel = self.hub.channels.get(name)
        if channel is None:
            return
        if isinstance(said, Push):
            channel.receive_join_leave(said)
            return
        verdict = channel.receive(said, epoch)
        if verdict is Continuity.GAP and epoch == self.log(name).epoch:
            self.mend(channel)
        elif verdict in (Continuity.GAP, Continuity.OTHER_EPOCH):
            self._restart(channel, Position(said.offset - 1, epoch))
            channel.receive(said, epoch)

    def mend(self, channel: Channel[Any]) -> None:
        """Hear from the log what was lost on the link, or tell those who miss what it no longer holds."""
        log = self.log(channel.name)
        missed = log.read(channel.tracker.offset)
        if missed.publications and missed.publications[0].offset == channel.tracker.offset + 1:
            for publication in missed.publications:
                channel.receive(publication, log.epoch)
        elif missed.publications:
            self._restart(channel, missed.top)

    def _restart(self, channel: Channel[Any], position: Position) -> None:
        for peer in channel.reset(position):
            assert isinstance(peer, CheckingClient)
            self.tell(peer, events.ChannelReset(channel.name))

    # ------------------------------------------------------------------------------------------------ writing

    def write_batch(self, channel: Channel[Any]) -> Iterator[None]:
        """Write a batch member by member."""
        batch = channel.take_batch()
        for framing, members, items in batch.recipients:
            payload = framing.pack(channel.name, items)
            for member in members:
                yield
                member.write(payload)

    # --------------------------------------------------------------------------------------------------- time

    def wait(self, seconds: float, answering: bool) -> None:
        """Keep every deadline that comes within so many seconds; pings are answered, or none is."""
        end = Timestamp(self.now.monotonic + seconds, self.now.unix + seconds)
        while deadline := self._next_deadline(end.monotonic):
            self.now = Timestamp(deadline, self.now.unix + deadline - self.now.monotonic)
            for peer in self.peers:
                if peer.session.deadline is not None and peer.session.deadline <= deadline:
                    self.tell(peer, events.DeadlineReached())
                    assert peer.session.deadline is None or peer.session.deadline > deadline
                if answering and peer.owes_pong:
                    peer.owes_pong = False
                    self.tell(peer, events.Received([PONG]))
        self.now = end

    def _next_deadline(self, end: float) -> float | None:
        deadlines = [peer.session.deadline for peer in self.peers]
        return min((due for due in deadlines if due is not None and due <= end), default=None)
