"""The synchronous half of a node: its connections, their sessions, the hub and its channels.

    event   -> apply()              -> the I/O to do
    history -> merge(), backfill()  -> the connections that must be told

Every method changes the state in one synchronous step, and returns what else must be done. The node does it;
between a check here and the change that it justifies nothing else can run.

The mutable state is the set of connections, and what hub, channels and sessions hold. Only the methods of
`NodeState`, and of the channels that they change, touch it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from msgspec import Struct

from tocsin_server.core import events
from tocsin_server.core.channel import Channel, SubscriberConnection
from tocsin_server.core.events import Event, GoLive, HistoryRead, Send, SubscriptionPlan, Timestamp
from tocsin_server.core.hub import Hub
from tocsin_server.core.phases import CLOSED, REFUSED
from tocsin_server.core.positions import History
from tocsin_server.core.recovery import FirstPage, first_page
from tocsin_server.core.session import Session
from tocsin_server.protocol.messages import Position, PresenceChange, Push, ServerMessage


class StateConnection(SubscriberConnection, Protocol):
    """What the state needs of a connection."""

    session: Session


C = TypeVar("C", bound=StateConnection)


# ------------------------------------------------------------------------------------ the I/O that is to do


class Write(Struct, frozen=True):
    """Write these messages to the connection, in order."""

    messages: Sequence[ServerMessage]


class UnsubscribeChannel(Struct, frozen=True):
    """The channel lost its last subscriber here. The engine unsubscribes, unless a new one came meanwhile."""

    channel: str


class RemovePresence(Struct, frozen=True):
    """Remove a client's presence entry from a channel."""

    channel: str
    client: str


class PublishJoinLeave(Struct, frozen=True):
    """Publish a join or leave to a channel."""

    channel: str
    push: Push


class CatchUp(Struct, frozen=True):
    """Read what the client missed in a channel, page by page, until the subscription has caught up."""

    channel: str


IoRequest = (
    Write
    | CatchUp
    | events.Close
    | events.Identify
    | events.ReserveConnection
    | events.OpenSubscriptions
    | events.Execute
    | events.Authorize
    | UnsubscribeChannel
    | RemovePresence
    | PublishJoinLeave
)
"""What `apply` leaves to be done: the session's effects that need I/O, and the I/O of a change of state."""


StateEffect = (
    events.Close
    | events.Identify
    | events.ReserveConnection
    | events.OpenSubscriptions
    | events.PublishJoin
    | events.CloseSubscription
    | events.Execute
    | events.Authorize
)
"""The effects that `apply` hands to `_apply_effect`: all but `Send` and `GoLive`."""


class Merged(NamedTuple, Generic[C]):
    """Histories, continued with what was received while they were read."""

    opened: events.SubscriptionsOpened | None
    """None if a history does not reach what this node received, and must be read again."""
    resets: Sequence[tuple[C, str]]
    """Connections that miss publications of a channel: each must get a `ChannelReset`."""


class Backfilled(NamedTuple, Generic[C]):
    """What a page of history added to a channel."""

    publication_count: int
    gap: tuple[Position, Position] | None
    """Where history could not fill: after the first position, up to the second."""
    resets: Sequence[C]
    """Connections that miss publications because of the gap: each must get a `ChannelReset`."""
    is_complete: bool
    """Whether the channel has reached the top of the history."""


class NodeState(Generic[C]):
    """Connections, hub and channels of one node."""

    def __init__(self) -> None:
        self.hub: Hub[C] = Hub()
        self.connections: set[C] = set()
        self.observe: Callable[[C, Event, Sequence[events.Effect], Timestamp], None] | None = None
        """Told of each event of an attached connection and of its effects, before they change the state."""

    def attach(self, connection: C) -> None:
        """Add a connection. The `apply` that closes its session removes it."""
        self.connections.add(connection)

    def apply(self, connection: C, event: Event, now: Timestamp) -> list[IoRequest]:
        """Hand an event to a connection's session, change the state, and return the I/O to do, in order."""
        requests: list[IoRequest] = []
        unwritten: list[ServerMessage] = []
        effects = connection.session.handle(event, now)
        if self.observe is not None and connection in self.connections:
            self.observe(connection, event, effects, now)
        for effect in effects:
            if isinstance(effect, Send):
                unwritten.append(effect.message)
            elif isinstance(effect, GoLive):
                channel = self.hub.channels[effect.channel]
                channel.go_live(
                    connection,
                    effect.start,
                    effect.receives_joins,
                    form=effect.form,
                    catches_up=effect.catches_up,
                )
                if effect.catches_up:
                    requests.append(CatchUp(effect.channel))
            else:
                if unwritten:
                    requests.append(Write(unwritten))
                    unwritten = []
                self._apply_effect(connection, effect, requests)
        if unwritten:
            requests.append(Write(unwritten))
        phase = connection.session.phase
        if phase is REFUSED:
            self.hub.remove(connection)  # its user was known before the connect command was refused
        elif phase is CLOSED and connection in self.connections:
            self.connections.discard(connection)
            self.hub.remove(connection)
        return requests

    def _apply_effect(self, connection: C, effect: StateEffect, requests: list[IoRequest]) -> None:
        """Change the state as an effect says, and append the I/O that is left."""
        match effect:
            case events.OpenSubscriptions():
                for plan in effect.plans:
                    self.hub.begin_subscribe(plan.channel)
                requests.append(effect)
            case events.CloseSubscription():
                self._close_subscription(connection, effect, requests)
            case events.Identify():
                self.hub.identify(connection, effect.user)
                requests.append(effect)
            case events.PublishJoin():
                join = Push(effect.channel, join=PresenceChange(effect.info))
                requests.append(PublishJoinLeave(effect.channel, join))
            case _:
                requests.append(effect)

    def _close_subscription(
        self, connection: C, effect: events.CloseSubscription, requests: list[IoRequest]
    ) -> None:
        channel, info = effect.channel, effect.info
        if self.hub.unsubscribe(connection, channel):
            requests.append(UnsubscribeChannel(channel))
        if effect.options.presence:
            requests.append(RemovePresence(channel, info.client))
        if effect.was_announced:
            leave = Push(channel, leave=PresenceChange(info))
            requests.append(PublishJoinLeave(channel, leave))

    def change_write(self, connection: C, *, is_behind: bool) -> None:
        """Deliver to a connection with its present `write`, which differs while its client is behind.

        Then the channels whose `slow_policy` says so keep their messages aside.
        """
        for name, options in connection.session.live_options:
            channel = self.hub.channels[name]
            channel.change_write(connection)
            if is_behind and options.slow_policy != "disconnect":
                channel.keep_aside(connection, options)

    # --------------------------------------------------------------------------------- what the engine read

    def merge(
        self,
        plans: Sequence[SubscriptionPlan],
        read: Mapping[str, History],
        room_bytes: float = math.inf,
    ) -> Merged[C]:
        """Continue the histories read for `plans` with what was received since they were begun.

        Recoveries that together exceed `room_bytes` are cut, and continue in pages. After this the caller
        must hand out the resets, and `SubscriptionsOpened` if there is one, before anything else runs.
        """
        histories: dict[str, History | None] = {plan.channel: None for plan in plans}
        continued: list[str] = []
        resets: list[tuple[C, str]] = []
        is_complete = True
        for plan in plans:
            if plan.read is None:
                continue
            page = self.merge_one(plan.channel, plan.read, read[plan.channel], room_bytes, resets)
            if page is None:
                is_complete = False
                continue
            histories[plan.channel] = page.history
            room_bytes -= sum(publication.size for publication in page.history.publications)
            if page.is_continued:
                continued.append(plan.channel)
        opened = events.SubscriptionsOpened(histories, continued) if is_complete else None
        return Merged(opened, resets)

    def merge_one(
        self,
        name: str,
        read: HistoryRead,
        history: History,
        room_bytes: float,
        resets: list[tuple[C, str]],
    ) -> FirstPage | None:
        """Do the same for one history, and append to `resets`. None: it must be read again."""
        channel = self.hub.channels[name]
        tracker = channel.tracker
        if tracker.is_known and tracker.position.epoch != history.top.epoch:
            resets += [(connection, name) for connection in channel.reset(history.top)]
        return first_page(read, history, channel.merge(history), room_bytes)

    def backfill(
        self, channel: Channel[C], history: History, replaced: Position | None = None
    ) -> Backfilled[C]:
        """Add a page of history to a channel that has missed publications.

        `replaced` is the channel's position in its former history, if `history` begins another one. Meanwhile
        the channel may already have moved to that other one.
        """
        before, top = channel.tracker.position, history.top
        followed = top.epoch if replaced is None else replaced.epoch
        if before.epoch not in (followed, top.epoch):
            return Backfilled(0, None, (), is_complete=False)  # the channel moved on: this page is too old
        has_moved = before.epoch == top.epoch != followed
        is_replaced = replaced is not None and not has_moved
        received = -1 if is_replaced else before.offset
        missed = [publication for publication in history.publications if publication.offset > received]
        start = missed[0].offset - 1 if missed else history.top.offset
        gap, resets = None, []
        if start > received:
            position = Position(start, history.top.epoch)
            gap, resets = (before, position), channel.reset(position)
        for publication in missed:
            channel.receive(publication, history.top.epoch)
        reached = channel.tracker.position
        is_complete = reached.epoch == top.epoch and reached.offset >= top.offset
        return Backfilled(len(missed), gap, resets, is_complete)
