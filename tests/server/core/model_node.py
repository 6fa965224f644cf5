"""A node without an event loop, around the real `NodeState`: each I/O is a job that a test finishes."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from tests.server.core.checking_client import CheckingClient
from tests.server.core.playbook import START
from tests.server.core.published import may_be_delta, published
from tests.server.core.recording_connection import StoredHistory
from tocsin_server import errors
from tocsin_server.core import events
from tocsin_server.core.channel import Channel
from tocsin_server.core.events import Event, SubscriptionPlan, Timestamp
from tocsin_server.core.hub import Hub
from tocsin_server.core.node_state import (
    CatchUp,
    IoRequest,
    NodeState,
    PublishJoinLeave,
    RemovePresence,
    StateEffect,
    UnsubscribeChannel,
    Write,
)
from tocsin_server.core.positions import History, is_other_history
from tocsin_server.protocol.json import JSON
from tocsin_server.protocol.messages import (
    EMPTY,
    PONG,
    HistoryRequest,
    HistoryResult,
    Position,
    PresenceRequest,
    PresenceResult,
    PresenceStatsResult,
    Publication,
    PublishRequest,
    Push,
)

HISTORY_SIZE = 4

PAGE_SIZE = 2
"""Publications in a page of a recovery."""


@dataclass(eq=False)
class Setup:
    """Subscriptions being set up: their histories are read at one moment, and merged at another."""

    connection: CheckingClient
    plans: list[SubscriptionPlan]
    read: dict[str, History] | None = None


@dataclass(eq=False)
class Execution:
    """A command that the engine executes."""

    connection: CheckingClient
    execute: events.Execute


@dataclass(eq=False)
class Authorization:
    """A request that waits for an answer from outside the session."""

    connection: CheckingClient
    authorize: events.Authorize


@dataclass(eq=False)
class Backfilling:
    """A channel that is backfilled: its history is read at one moment, and added at another."""

    channel: Channel[CheckingClient]
    history: History | None = None
    replaced: Position | None = None


@dataclass(eq=False)
class CatchingUp:
    """A subscription that catches up: a page is read at one moment, and added at another."""

    connection: CheckingClient
    channel: str
    since: int = 0
    page: History | None = None


Job = Setup | Execution | Authorization | Backfilling | CatchingUp


class EpochHistory(StoredHistory):
    """A history whose publications state their epoch and offset."""

    def append(self, _data: bytes = b"") -> Publication:
        """Return the next publication."""
        number = self.top + 1
        super().append()
        self.kept[-1] = published(self.epoch, number, number)
        return self.kept[-1]


class CountingState(NodeState[CheckingClient]):
    """The state of a node, which counts how often each connection subscribes to a channel and ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribed: Counter[tuple[CheckingClient, str]] = Counter()

    def _apply_effect(
        self, connection: CheckingClient, effect: StateEffect, requests: list[IoRequest]
    ) -> None:
        if isinstance(effect, events.OpenSubscriptions):
            for plan in effect.plans:
                self.subscribed[connection, plan.channel] += 1
                assert self.subscribed[connection, plan.channel] == 1, "subscribed twice"
        elif isinstance(effect, events.CloseSubscription):
            self.subscribed[connection, effect.channel] -= 1
            assert self.subscribed[connection, effect.channel] == 0, "ended twice"
        super()._apply_effect(connection, effect, requests)


ALLOWED_AFTER_CLOSE = (UnsubscribeChannel, RemovePresence, PublishJoinLeave)


@dataclass
class ModelNode:
    """A node whose writes happen at once, and whose calls to the engine and turns are done later."""

    now: Timestamp = START
    state: CountingState = field(default_factory=CountingState)
    clients: list[CheckingClient] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    pubsub: deque[tuple[str, Publication | Push, str]] = field(default_factory=deque)
    histories: dict[str, EpochHistory] = field(default_factory=dict)
    batches: list[Iterator[None]] = field(default_factory=list)
    unstored: int = 0
    """How many publications no history holds."""
    behind: set[CheckingClient] = field(default_factory=set)
    """The clients that take nothing."""
    room_bytes: float = math.inf
    """What subscribe replies may have of a recovery."""
    turns: deque[CheckingClient] = field(default_factory=deque)
    """The clients whose sessions need a turn."""

    @property
    def hub(self) -> Hub[CheckingClient]:
        return self.state.hub

    def attach(self, client: CheckingClient) -> None:
        self.clients.append(client)
        self.state.attach(client)

    def handle_event(self, client: CheckingClient, event: Event) -> None:
        """Hand an event to a connection's session, and perform the I/O that the state returns."""
        was_closed = client.session.is_closed
        for request in self.state.apply(client, event, self.now):
            assert not was_closed or isinstance(request, ALLOWED_AFTER_CLOSE), (
                "a closed session must only clean up"
            )
            self._perform(client, request)
        if isinstance(event, events.SubscriptionsOpened) and client in self.behind:
            self.state.change_write(client, is_behind=True)
        if client.session.needs_turn and client not in self.turns:
            self.turns.append(client)
        if client.session.is_closed:
            client.is_closed = True
            assert client not in self.state.connections

    def take_turn(self) -> None:
        """Give the client that has waited longest its turn."""
        self.handle_event(self.turns.popleft(), events.Turn())

    def _perform(self, client: CheckingClient, request: IoRequest) -> None:
        match request:
            case Write(messages):
                for message in messages:
                    client.receive(json.loads(JSON.encode(message)))
            case events.OpenSubscriptions(plans):
                self.jobs.append(Setup(client, list(plans)))
            case CatchUp(channel):
                self.jobs.append(CatchingUp(client, channel))
            case events.Execute():
                self.jobs.append(Execution(client, request))
            case events.Authorize():
                self.jobs.append(Authorization(client, request))
            case PublishJoinLeave(channel, push):
                self.pubsub.append((channel, push, ""))

    # --------------------------------------------------------------------------------------------- the engine

    def history(self, channel: str) -> EpochHistory:
        """Return a channel's history. The first call creates it."""
        return self.histories.setdefault(channel, EpochHistory(HISTORY_SIZE, f"{channel} 1"))

    def replace_history(self, channel: str) -> None:
        """Remove a channel's history; the next one has another epoch."""
        number = int(self.history(channel).epoch.rpartition(" ")[2]) + 1
        self.histories[channel] = EpochHistory(HISTORY_SIZE, f"{channel} {number}")

    def publish(self, channel: str) -> None:
        """Add a publication to the channel's history, if it keeps one, and publish it."""
        if channel.startswith(("history:", "cache:")):
            history = self.history(channel)
            self.pubsub.append((channel, history.append(), history.epoch))
        else:
            self.unstored += 1
            self.pubsub.append((channel, published("", self.unstored, 0), ""))

    def finish(self, job: Job, succeeds: bool) -> None:
        """Perform one step of a job."""
        match job:
            case Execution(client, execute):
                self.jobs.remove(job)
                outcome = self._execute(execute) if succeeds else errors.INTERNAL_ERROR
                self.handle_event(client, events.Executed(execute.id, outcome))
            case Authorization(client, authorize):
                self.jobs.remove(job)
                answer = events.Approval(authorize.request) if succeeds else errors.PERMISSION_DENIED
                self.handle_event(client, events.Authorized(authorize.id, answer))
            case Backfilling():
                self._backfill(job)
            case CatchingUp():
                self._catch_up(job)
            case Setup(client, plans) if not succeeds:
                self.jobs.remove(job)
                self.handle_event(client, events.SubscriptionsFailed([plan.channel for plan in plans]))
            case Setup(_, plans, None):
                job.read = {plan.channel: self._read(plan) for plan in plans if plan.read is not None}
            case Setup():
                self._merge(job)

    def _merge(self, job: Setup) -> None:
        merged = self.state.merge(job.plans, job.read or {}, self.room_bytes)
        for client, channel in merged.resets:
            self.handle_event(client, events.ChannelReset(channel))
        if merged.opened is None:
            job.read = None  # to be read again
        else:
            self.jobs.remove(job)
            self.handle_event(job.connection, merged.opened)

    def _catch_up(self, job: CatchingUp) -> None:
        channel = self.hub.channels.get(job.channel)
        since = None if channel is None else channel.catching_up_from(job.connection)
        if channel is None or since is None or (job.page is not None and job.since != since):
            self.jobs.remove(job)  # it was unsubscribed meanwhile
        elif job.page is None:
            read = self.history(job.channel).read(since)
            job.since, job.page = since, History(read.top, read.publications[:PAGE_SIZE])
        else:
            self.jobs.remove(job)
            may_skip = job.channel.startswith("cache:")
            added = channel.catch_up(job.connection, job.page, may_skip=may_skip)
            if added.has_gap:
                self.handle_event(job.connection, events.ChannelReset(job.channel))
            else:
                if added.messages:
                    job.connection.write(job.connection.framing.pack(job.channel, added.messages))
                if not added.is_complete:
                    self.jobs.append(CatchingUp(job.connection, job.channel))

    def _read(self, plan: SubscriptionPlan) -> History:
        history = self.history(plan.channel)
        assert plan.read is not None
        if plan.read.is_latest:
            return History(history.read().top, history.kept[-1:])
        if plan.read.since is None:
            return History(history.read().top)
        read = history.read(plan.read.since.offset)
        return History(read.top, read.publications[: plan.read.limit])

    def _execute(self, execute: events.Execute) -> Struct:
        match execute.request:
            case PublishRequest(channel):
                self.publish(channel)
                return EMPTY
            case HistoryRequest(channel):
                top = self.history(channel).read().top
                return HistoryResult([], top.epoch, top.offset)
            case PresenceRequest():
                return PresenceResult({})
            case _:
                return PresenceStatsResult(0, 0)

    # ---------------------------------------------------------------------------------------------- receiving

    def receive_next(self) -> None:
        """Receive the next message from pub/sub, if its channel has a subscriber here."""
        name, message, epoch = self.pubsub.popleft()
        channel = self.hub.channels.get(name)
        if channel is None:
            return
        if isinstance(message, Push):
            channel.receive_join_leave(message)
        else:
            number = json.loads(bytes(message.data))[1]
            received = channel.receive(message, epoch, may_be_delta=may_be_delta(number))
            if received.needs_backfill:
                self.request_backfill(channel)

    def request_backfill(self, channel: Channel[CheckingClient]) -> None:
        """Backfill a channel. A second request meanwhile starts a second backfill."""
        if channel.tracker.is_known and channel.name.startswith(("history:", "cache:")):
            self.jobs.append(Backfilling(channel))

    def _backfill(self, job: Backfilling) -> None:
        channel, history = job.channel, self.history(job.channel.name)
        if job.history is None:
            since = channel.tracker.position
            job.history = history.read(since.offset)
            if is_other_history(since, job.history.top):
                job.history, job.replaced = history.read(), since
            return
        self.jobs.remove(job)
        if self.hub.channels.get(channel.name) is channel:
            added = self.state.backfill(channel, job.history, job.replaced)
            for client in added.resets:
                self.handle_event(client, events.ChannelReset(channel.name))
            if not added.is_complete:
                self.request_backfill(channel)

    # ----------------------------------------------------------------------------------------------- delivery

    def write_batch(self, channel: Channel[Any]) -> Iterator[None]:
        """Write a batch subscriber by subscriber."""
        batch = channel.take_batch()
        for framing, subscribers, messages in batch.recipients:
            payload = framing.pack(channel.name, messages)
            for subscriber in subscribers:
                yield
                subscriber.write(payload)

    def fall_behind(self, client: CheckingClient) -> None:
        """Let a client take nothing for a while, in the middle of a batch, too."""
        self.behind.add(client)
        self.state.change_write(client, is_behind=True)

    def catch_up_with(self, client: CheckingClient) -> None:
        """Let a client take again, and write what was kept for it, as a node does."""
        self.behind.discard(client)
        self.state.change_write(client, is_behind=False)
        for name, _ in client.session.live_options:
            channel = self.hub.channels.get(name)
            kept = channel.release(client) if channel is not None else None
            if kept is not None and kept.dropped and client.session.has_position_in(name):
                self.handle_event(client, events.ChannelReset(name))
            elif kept is not None and kept.messages:
                client.write(client.framing.pack(name, kept.messages))

    # --------------------------------------------------------------------------------------------------- time

    def wait(self, seconds: float, answering: bool) -> None:
        """Let so many seconds pass, with every deadline in them; all pings are answered, or none."""
        end = Timestamp(self.now.monotonic + seconds, self.now.unix + seconds)
        while deadline := self._next_deadline(end.monotonic):
            self.now = Timestamp(deadline, self.now.unix + deadline - self.now.monotonic)
            for client in self.clients:
                if client.session.deadline is not None and client.session.deadline <= deadline:
                    self.handle_event(client, events.DeadlineReached())
                    assert client.session.deadline is None or client.session.deadline > deadline
                if answering and client.has_unanswered_ping:
                    client.has_unanswered_ping = False
                    self.handle_event(client, events.Received([PONG]))
        self.now = end

    def _next_deadline(self, end: float) -> float | None:
        deadlines = [client.session.deadline for client in self.clients]
        return min((due for due in deadlines if due is not None and due <= end), default=None)
