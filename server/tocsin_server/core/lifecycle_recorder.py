"""The recorder: makes lifecycle events of what sessions do, and batches of them for the event log.

    effects of a session --observe()--> waiting --next_batch()--> in flight --settle()--> written
                                           ^                           |
                                           +---- not written ----------+

One batch is in flight at a time. What the log knows of a session is `_written`; what is true is `_sessions`.
The waiting events lead from the one to the other.

The mutable state is the live sessions, the occupied channels, what is waiting and in flight, and what is
written. Only the methods of `LifecycleRecorder` change it; all are synchronous.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from tocsin_server.config.event_options import EventType
from tocsin_server.core import events
from tocsin_server.core.events import Effect, Event, Timestamp
from tocsin_server.core.lifecycle import (
    CHANNEL_TYPES,
    CLIENT_DISCONNECTED,
    CLIENT_LEFT,
    CLIENT_UNSUBSCRIBED,
    SESSION_TYPES,
    EventBatch,
    LifecycleEvent,
    SessionRecord,
    WriteOutcome,
)
from tocsin_server.core.session import Session
from tocsin_server.core.waiting_events import WaitingEvents
from tocsin_server.errors import Disconnect, Unsubscribed

BATCH_EVENTS = 500
"""How many events one batch has at most. Redis takes about 2 ms for so many, and does nothing else."""


class _LiveSession:
    """One session that has connected, as far as it is recorded."""

    __slots__ = ("channels", "connected", "sequence", "transport", "user")

    def __init__(self, user: str, transport: str) -> None:
        self.user = user
        self.transport = transport
        self.sequence = 0
        self.connected: LifecycleEvent | None = None
        self.channels: dict[str, LifecycleEvent | None] = {}
        """The recorded channels in which it is subscribed, each with its `subscribed` event."""


class LifecycleRecorder:
    """Records the sessions of one node.

    `types` are the types of events that are wanted. Sessions are only followed if a type needs it. `records`
    says whether the events of a channel are wanted. `node` is the node's name in the events, and `uid` makes
    the ids of the events of channels unique.
    """

    def __init__(
        self,
        types: Collection[EventType],
        records: Callable[[str], bool],
        node: str,
        uid: str,
        waiting_bytes: int,
    ) -> None:
        self._types = frozenset(types) | {"state_lost"}
        self._follows_sessions = bool((SESSION_TYPES - {"cache_empty"}).intersection(types))
        self._follows_subscriptions = bool({"subscribed", "unsubscribed"}.intersection(types))
        self._follows_channels = bool(CHANNEL_TYPES.intersection(types))
        self._records_cache_empty = "cache_empty" in types
        self._records = records
        self._node = node
        self._uid = uid
        self._sessions: dict[str, _LiveSession] = {}
        self._occupied: dict[str, int] = {}
        """How many live subscriptions each recorded channel has on this node."""
        self._channel_events = 0
        self._waiting = WaitingEvents(waiting_bytes)
        self._in_flight: tuple[EventBatch, Sequence[LifecycleEvent]] | None = None
        """A batch, and all events that it covers, also those of types that are not wanted."""
        self._written: dict[str, SessionRecord] = {}
        self._last_batch = 0

    @property
    def clients(self) -> Collection[str]:
        """The clients whose end is told from here: those that live, and those whose events wait."""
        return self._sessions.keys() | {event.client for event in self._waiting}

    @property
    def has_waiting(self) -> bool:
        """Whether the next batch has events."""
        return self.waiting_count > 0

    @property
    def waiting_count(self) -> int:
        """How many events are not written yet."""
        return len(self._waiting) + (len(self._in_flight[1]) if self._in_flight else 0)

    @property
    def dropped_count(self) -> int:
        """How many events were dropped, in pairs of which nothing was written, because too many waited."""
        return self._waiting.dropped_count

    # --------------------------------------------------------------------------------------------- recording

    def observe(
        self, session: Session, transport: str, event: Event, effects: Sequence[Effect], now: Timestamp
    ) -> None:
        """Record what a session does. `effects` are those of `event`, in their order."""
        if not session.has_connected:
            return
        live = self._sessions.get(session.client)
        if live is None:
            live = self._sessions[session.client] = _LiveSession(session.user, transport)
            live.connected = self._add(session.client, live, "connected", now)
        closed_with: Disconnect | None = None
        for index, effect in enumerate(effects):
            if isinstance(effect, events.GoLive):
                self._subscribed(session, live, event, effect, now)
            elif isinstance(effect, events.CloseSubscription):
                why = _why_unsubscribed(session, effect, effects[index + 1 : index + 2])
                self._unsubscribed(session.client, live, effect.channel, why, now)
            elif isinstance(effect, events.Close):
                closed_with = effect.why
        if session.is_closed:
            why_closed = closed_with or CLIENT_LEFT
            self._add(session.client, live, "disconnected", now, why=why_closed)
            del self._sessions[session.client]

    def _subscribed(
        self, session: Session, live: _LiveSession, event: Event, effect: events.GoLive, now: Timestamp
    ) -> None:
        channel = effect.channel
        if not self._records(channel):
            return
        live.channels[channel] = (
            self._add(session.client, live, "subscribed", now, channel)
            if self._follows_subscriptions
            else None
        )
        self._occupy(channel, now)
        if (
            self._records_cache_empty
            and isinstance(event, events.SubscriptionsOpened)
            and not effect.catches_up
            and session.misses_cache(channel, event.histories.get(channel))
        ):
            self._add(session.client, live, "cache_empty", now, channel)

    def _unsubscribed(
        self, client: str, live: _LiveSession, channel: str, why: Unsubscribed, now: Timestamp
    ) -> None:
        if channel not in live.channels:
            return
        del live.channels[channel]
        if self._follows_subscriptions:
            self._add(client, live, "unsubscribed", now, channel, why)
        count = self._occupied[channel] - 1
        if count:
            self._occupied[channel] = count
        else:
            del self._occupied[channel]
            self._add_channel_event("vacated", channel, now)

    def _occupy(self, channel: str, now: Timestamp) -> None:
        count = self._occupied.get(channel, 0)
        self._occupied[channel] = count + 1
        if not count:
            self._add_channel_event("occupied", channel, now)

    def _add(
        self,
        client: str,
        live: _LiveSession,
        kind: EventType,
        now: Timestamp,
        channel: str = "",
        why: Disconnect | Unsubscribed = CLIENT_UNSUBSCRIBED,
    ) -> LifecycleEvent | None:
        """Let an event of a session wait. Its fields `code` and `reason` are those of `why` at an end."""
        if not self._follows_sessions and kind != "cache_empty":
            return None
        live.sequence += 1
        is_end = kind in ("disconnected", "unsubscribed")
        event = LifecycleEvent(
            type=kind,
            id=f"{client}-{live.sequence}",
            time=now.unix,
            node=self._node,
            client=client,
            user=live.user,
            sequence=live.sequence,
            channel=channel,
            transport=live.transport,
            code=why.code if is_end else 0,
            reason=why.reason if is_end else "",
        )
        self._waiting.add(event)
        return event

    def _add_channel_event(self, kind: EventType, channel: str, now: Timestamp) -> None:
        if self._follows_channels:
            self._channel_events += 1
            event_id = f"{self._uid}-{self._channel_events}"
            self._waiting.add(LifecycleEvent(kind, event_id, now.unix, self._node, channel=channel))

    # ----------------------------------------------------------------------------------------------- writing

    def next_batch(self) -> EventBatch:
        """Return the batch in flight, or else the next one, which may be empty."""
        if self._in_flight is None:
            taken = self._waiting.take(BATCH_EVENTS)
            sessions = _changed_sessions(self._written, taken) if self._follows_sessions else {}
            wanted = [event for event in taken if event.type in self._types or event.type in CHANNEL_TYPES]
            self._last_batch += 1
            self._in_flight = EventBatch(self._last_batch, wanted, sessions), taken
        return self._in_flight[0]

    def settle(self, outcome: WriteOutcome, now: Timestamp) -> None:
        """Note what became of the batch in flight. Unless it was WRITTEN, the next batch has the number 1."""
        if self._in_flight is None:
            return
        batch, taken = self._in_flight
        self._in_flight = None
        if outcome in (WriteOutcome.WRITTEN, WriteOutcome.WRITTEN_AND_REAPED):
            for client, record in batch.sessions.items():
                if record is None:
                    self._written.pop(client, None)
                else:
                    self._written[client] = record
        else:
            self._waiting.put_back(taken)
        if outcome is not WriteOutcome.WRITTEN:
            self._last_batch = 0
            self._begin_again(is_reaped=outcome is not WriteOutcome.STATE_LOST, now=now)

    def _begin_again(self, *, is_reaped: bool, now: Timestamp) -> None:
        self._waiting.remove(lambda event: event.type in CHANNEL_TYPES)
        if is_reaped:
            self._connect_again(now)
        else:
            self._tell_again()
        for channel in self._occupied:
            self._add_channel_event("occupied", channel, now)

    def _connect_again(self, now: Timestamp) -> None:
        """Another node has said the end of the sessions that are written. Those that live begin again.

        Of those that ended meanwhile, subscriptions of which nothing was written are dropped.

        That node used at most one sequence number for the end of each subscription and one for the end of
        the session, after those that were written. So the numbers after that many more are free.
        """
        unwritten = {event.client for event in self._waiting if event.type == "connected"}
        known = self._written.keys() - unwritten
        self._written = {}
        for event in self._waiting.remove(lambda event: event.client in known):
            is_told = event.client in self._sessions or event.type in ("unsubscribed", "disconnected")
            self._waiting.dropped_count += not is_told
        for client in known:
            live = self._sessions.get(client)
            if live is None:
                continue
            live.sequence += len(live.channels) + 1
            live.connected = self._add(client, live, "connected", now)
            if self._follows_subscriptions:
                for channel in live.channels:
                    live.channels[channel] = self._add(client, live, "subscribed", now, channel)

    def _tell_again(self) -> None:
        """The log has lost sessions that were written. Let events wait that describe those that live.

        They are the original ones, without those that wait already. The numbers of their last events stay
        written, so that no node uses a number twice.
        """
        waiting = {event.id for event in self._waiting}
        told: list[LifecycleEvent] = []
        written: dict[str, SessionRecord] = {}
        for client, record in self._written.items():
            live = self._sessions.get(client)
            if live is None:
                continue
            written[client] = SessionRecord(record.user, record.transport, record.sequence)
            described = [live.connected, *live.channels.values()]
            told += [event for event in described if event is not None and event.id not in waiting]
        self._written = written
        self._waiting.put_back(told)


def _why_unsubscribed(
    session: Session, closed: events.CloseSubscription, following: Sequence[Effect]
) -> Unsubscribed:
    """Why a subscription was closed. The effect after it may be the push that tells the client."""
    if session.is_closed:
        return CLIENT_DISCONNECTED
    for effect in following:
        push = getattr(getattr(effect, "message", None), "push", None)
        if push is not None and push.unsubscribe is not None and push.channel == closed.channel:
            return Unsubscribed(push.unsubscribe.code, push.unsubscribe.reason)
    return CLIENT_UNSUBSCRIBED


def _changed_sessions(
    written: Mapping[str, SessionRecord], taken: Sequence[LifecycleEvent]
) -> dict[str, SessionRecord | None]:
    """The sessions of these events, as they are after them."""
    channels: dict[str, dict[str, None]] = {}
    last: dict[str, LifecycleEvent] = {}
    for event in taken:
        if not event.client:
            continue
        subscribed = channels.get(event.client)
        if subscribed is None:
            before = written.get(event.client)
            subscribed = channels[event.client] = dict.fromkeys(before.channels if before else ())
        if event.type == "subscribed":
            subscribed[event.channel] = None
        elif event.type == "unsubscribed":
            subscribed.pop(event.channel, None)
        last[event.client] = event
    changed: dict[str, SessionRecord | None] = {}
    for client, event in last.items():
        before = written.get(client)
        sequence = max(event.sequence, before.sequence if before else 0)
        record = SessionRecord(event.user, event.transport, sequence, tuple(channels[client]))
        changed[client] = None if event.type == "disconnected" else record
    return changed
