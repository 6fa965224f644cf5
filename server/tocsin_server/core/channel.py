"""One channel on one node: its subscribers, its position in history, and the messages queued for delivery.

    begin_subscribe() -- merge() -- go_live() [-- catch_up() …] … unsubscribe()
    receive() -- queue -- take_batch()

Received messages are queued in one order. A batch takes the first of them, up to BATCH_BYTES. It is for
the subscribers that are present when it is taken. Each subscriber stores the channel's message count at
the moment it went live, so a subscriber that goes live while messages are queued is delivered only the
later ones.

A subscriber that catches up is not delivered batches. It gets its missed publications in pages, and joins the
others once it has everything up to the channel's position.

The mutable state is that of `Channel` and of its `Subscriber`s: the subscribers, the position tracker, the
queue, and the publications held for subscriptions that are being set up or catch up. Only the methods of
`Channel` change it; every method is one synchronous step, and the caller schedules the delivery.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, NamedTuple

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.batch import Batch, C, Framing, Group, Subscriber, SubscriberConnection, whole
from tocsin_server.core.channel_message import ChannelMessage, encodable
from tocsin_server.core.form import PLAIN, Form
from tocsin_server.core.kept_messages import KeptMessages
from tocsin_server.core.positions import NEXT, Continuity, History, PositionTracker, merge
from tocsin_server.protocol.messages import Position, Publication, Push
from tocsin_server.protocol.payloads import Payload

__all__ = [
    "BATCH_BYTES",
    "HELD_BYTES",
    "HELD_LIMIT",
    "Batch",
    "C",
    "CaughtUp",
    "Channel",
    "ChannelMessage",
    "Framing",
    "Subscriber",
    "SubscriberConnection",
    "encodable",
]

HELD_LIMIT = 1000
"""Publications held for subscriptions being set up. If history ends before them, it is read again."""

HELD_BYTES = 2 * 1_048_576
"""Payload bytes of these publications, at most, unless there is only one."""

BATCH_BYTES = 65_536
"""The size at which a batch is full. By default it is far below a connection's queue limit."""


class CatchingUp(NamedTuple, Generic[C]):
    """A subscriber that catches up, and the joins and leaves that it gets afterwards."""

    subscriber: Subscriber[C]
    joins: deque[Push]


class KeptAside(NamedTuple, Generic[C]):
    """A subscriber whose client is behind, and what is kept for it."""

    subscriber: Subscriber[C]
    kept: KeptMessages


class CaughtUp(NamedTuple):
    """What a page of history adds for a subscriber that catches up."""

    messages: Sequence[ChannelMessage]
    """To be written to it in the same step."""
    is_complete: bool = False
    """Whether it is delivered everything that follows from now on. Otherwise the next page must be read."""
    has_gap: bool = False
    """Whether history no longer holds what the client missed. Its subscription must be reset."""


class Channel(Generic[C]):
    """One channel on one node."""

    __slots__ = (
        "_base",
        "_catching_up",
        "_groups",
        "_held",
        "_join_receivers",
        "_kept_aside",
        "_live_count",
        "_may_have_joins",
        "_queue",
        "_recent",
        "_sent_count",
        "_special_count",
        "_subscribers",
        "_subscribing",
        "_waiting_for_offset",
        "held_bytes",
        "name",
        "queued_bytes",
        "tracker",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.tracker = PositionTracker()
        self.queued_bytes = 0
        self._queue: deque[ChannelMessage] = deque()
        self._may_have_joins = False  # whether a join or leave is queued, or was since the queue was empty
        self._sent_count = 0  # messages that have left the queue; plus the queue's length: all received
        self._subscribers: dict[Framing, dict[C, Subscriber[C]]] = {}
        self._groups: list[Group[C]] | None = None  # the same by framing and form, cached
        self._live_count = 0  # how many these are
        self._special_count = 0  # of these, how many have another form than PLAIN
        self._recent: dict[Subscriber[C], None] = {}  # get less of the next batch than their groups
        self._base: Payload | None = None  # the data of the last publication that left, if deltas are used
        self._waiting_for_offset: list[
            Subscriber[C]
        ] = []  # their replies reach beyond what was received here
        self._join_receivers = 0  # of the live ones and those kept aside, how many receive joins
        self._subscribing = 0
        self._held: deque[tuple[Publication, str]] = deque()
        self.held_bytes = 0
        """Payload bytes held for subscriptions that are being set up or catch up."""
        self._catching_up: dict[C, CatchingUp[C]] = {}
        self._kept_aside: dict[C, KeptAside[C]] = {}

    def __len__(self) -> int:
        """Return how many subscribers the channel has on this node."""
        waiting = len(self._waiting_for_offset) + len(self._catching_up) + len(self._kept_aside)
        return self._live_count + waiting

    @property
    def subscriber_count(self) -> int:
        """How many subscribers it has here, with those that are being set up."""
        waiting = len(self._waiting_for_offset) + len(self._kept_aside)
        return self._live_count + waiting + self._subscribing  # those that catch up are being set up

    @property
    def is_wanted(self) -> bool:
        """Whether the channel has a subscriber here, or a subscription is being set up."""
        return bool(self._subscribing or self._waiting_for_offset or self._is_delivered)

    @property
    def _is_delivered(self) -> bool:
        """Whether a message must be queued for anyone."""
        return bool(self._live_count or self._kept_aside)

    @property
    def connections(self) -> list[C]:
        """The connections of all subscribers."""
        live = [connection for group in self._subscribers.values() for connection in group]
        waiting = [subscriber.connection for subscriber in self._waiting_for_offset]
        return [*live, *waiting, *self._catching_up, *self._kept_aside]

    # ------------------------------------------------------------------------------- subscribe, unsubscribe

    def begin_subscribe(self) -> None:
        """Hold publications from now on, for a subscription that is being set up.

        Must be followed by `go_live` or `unsubscribe`.
        """
        self._subscribing += 1

    def merge(self, history: History) -> History | None:
        """Continue `history` with the held publications. A channel without a position gets the merged top.

        Returns None if publications are missing before what this node has received. The caller must then read
        history again: the engine stores a publication before it sends it.
        """
        merged = history
        if self._held:
            epoch = history.top.epoch
            merged = merge(history, [publication for publication, other in self._held if other == epoch])
        if not self.tracker.is_known:
            self.tracker.set(merged.top)
        elif merged.top.epoch == self.tracker.position.epoch and merged.top.offset < self.tracker.offset:
            return None
        return merged

    def go_live(
        self,
        connection: C,
        start_offset: int,
        receives_joins: bool,
        *,
        form: Form = PLAIN,
        catches_up: bool = False,
    ) -> None:
        """Deliver to `connection`, which has everything up to `start_offset`, what follows.

        If it `catches_up`, publications are still held, and `catch_up` must follow.
        """
        subscriber = Subscriber(connection, connection.write, start_offset, receives_joins, form)
        if catches_up:
            self._catching_up[connection] = CatchingUp(subscriber, deque(maxlen=HELD_LIMIT))
        else:
            self._join_live(subscriber)

    def _join_live(self, subscriber: Subscriber[C]) -> None:
        self._stop_holding()
        if subscriber.start_offset > self.tracker.offset and self.tracker.is_known:
            self._waiting_for_offset.append(subscriber)
        else:
            self._add(subscriber)

    def catching_up_from(self, connection: C) -> int | None:
        """Return the offset after which a subscriber's next page begins; None if it does not catch up."""
        found = self._catching_up.get(connection)
        return None if found is None else found.subscriber.start_offset

    def catch_up(self, connection: C, page: History, *, may_skip: bool = False) -> CaughtUp:
        """Add a page that was read after `catching_up_from`.

        `may_skip`: publications before the page are superseded, so that they are no gap.
        """
        subscriber, joins = self._catching_up[connection]
        start, top = subscriber.start_offset, page.top
        first = page.publications[0].offset if page.publications else top.offset + 1
        is_other = top.epoch != self.tracker.position.epoch
        if is_other or (first != start + 1 and not (may_skip and first > start)):
            return CaughtUp((), has_gap=True)
        last = page.publications[-1].offset if page.publications else top.offset
        merged = self.merge(page) if last == top.offset else None
        if merged is None:
            subscriber.start_offset = last
            return CaughtUp(whole(self._messages(page), subscriber.form))
        del self._catching_up[connection]
        subscriber.start_offset = merged.top.offset
        self._join_live(subscriber)
        messages = [*self._messages(merged), *map(ChannelMessage, joins)]
        return CaughtUp(whole(messages, subscriber.form), is_complete=True)

    def _messages(self, history: History) -> list[ChannelMessage]:
        epoch = history.top.epoch
        return [ChannelMessage(Push(self.name, pub=one), epoch) for one in history.publications]

    def unsubscribe(self, connection: C) -> None:
        """Stop delivering to `connection`, or give up a subscription that was being set up."""
        subscriber = self._take_out(connection)
        if connection in self._kept_aside:
            subscriber = self._kept_aside.pop(connection).subscriber
        if subscriber is not None:
            subscriber.retire()
            self._join_receivers -= subscriber.receives_joins
        elif not self._remove_waiting_for_offset(connection):
            self._catching_up.pop(connection, None)
            self._stop_holding()

    def keep_aside(self, connection: C, options: ChannelOptions) -> None:
        """Keep messages for a live subscriber from the next batch on, until `release`."""
        subscriber = self._take_out(connection)
        if subscriber is not None:
            self._kept_aside[connection] = KeptAside(subscriber, KeptMessages(options, subscriber.form))

    def release(self, connection: C) -> KeptMessages | None:
        """Deliver to a subscriber again. Returns what was kept, to be written in the same step."""
        found = self._kept_aside.pop(connection, None)
        if found is None:
            return None
        found.subscriber.write = connection.write
        self._put_in(found.subscriber)
        return found.kept

    def _keep(self, batch: Batch[C], first: int) -> None:
        for subscriber, kept in self._kept_aside.values():
            skipped, tags_filter = max(subscriber.live_since_count - first, 0), subscriber.form.tags_filter
            messages = batch.messages[skipped:]
            if tags_filter is not None:
                messages = batch.matching(tags_filter, skipped)
            for message in messages:
                if message.is_publication or subscriber.receives_joins:
                    kept.add(message)

    def change_write(self, connection: C) -> None:
        """Write to a subscriber with its connection's present `write`."""
        subscriber = self._subscribers.get(connection.framing, {}).get(connection)
        if subscriber is not None:
            subscriber.write = connection.write

    def _add(self, subscriber: Subscriber[C]) -> None:
        subscriber.live_since_count = self._sent_count + len(self._queue)
        self._join_receivers += subscriber.receives_joins
        self._put_in(subscriber)

    def _put_in(self, subscriber: Subscriber[C]) -> None:
        """Deliver to a subscriber from the next batch on."""
        if subscriber.form.uses_delta or subscriber.live_since_count > self._sent_count:
            self._recent[subscriber] = None
        self._live_count += 1
        self._special_count += subscriber.form is not PLAIN
        self._subscribers.setdefault(subscriber.connection.framing, {})[subscriber.connection] = subscriber
        self._groups = None

    def _take_out(self, connection: C) -> Subscriber[C] | None:
        """Deliver no further batch to a connection's subscriber. None if none was delivered to it."""
        subscriber = self._subscribers.get(connection.framing, {}).pop(connection, None)
        if subscriber is not None:
            self._recent.pop(subscriber, None)
            self._live_count -= 1
            self._special_count -= subscriber.form is not PLAIN
            self._groups = None
        return subscriber

    def _remove_waiting_for_offset(self, connection: C) -> bool:
        for subscriber in self._waiting_for_offset:
            if subscriber.connection is connection:
                self._waiting_for_offset.remove(subscriber)
                return True
        return False

    def _stop_holding(self) -> None:
        self._subscribing -= 1
        if not self._subscribing:
            self._held.clear()
            self.held_bytes = 0

    def _hold(self, publication: Publication, epoch: str) -> None:
        self._held.append((publication, epoch))
        self.held_bytes += len(publication.data)
        while len(self._held) > 1 and (len(self._held) > HELD_LIMIT or self.held_bytes > HELD_BYTES):
            self.held_bytes -= len(self._held.popleft()[0].data)

    # ---------------------------------------------------------------------------------------------- receive

    def receive(
        self,
        publication: Publication,
        epoch: str,
        published_at: float = 0.0,
        *,
        may_be_delta: bool = False,
    ) -> Continuity:
        """Queue a publication that the engine sent, if it continues what was received before.

        `may_be_delta`: subscribers that use deltas may get it as one.

        Any other result than NEXT leaves the channel unchanged; after AHEAD and OTHER_EPOCH the caller must
        backfill.
        """
        if publication.offset:
            continuity = self.tracker.advance(publication.offset, epoch)
            if continuity is not NEXT:
                return continuity
            if self._subscribing:
                self._hold(publication, epoch)
        else:
            epoch = ""
        if self._is_delivered:
            push = Push(self.name, pub=publication)
            self._queue.append(ChannelMessage(push, epoch, published_at, may_be_delta=may_be_delta))
            self.queued_bytes += push.size
        if self._waiting_for_offset:
            self._add_caught_up()
        return NEXT

    def receive_join_leave(self, push: Push) -> None:
        """Queue a join or leave, for the subscribers that receive them."""
        if self._join_receivers and self._is_delivered:
            self._may_have_joins = True
            self._queue.append(ChannelMessage(push))
            self.queued_bytes += push.size
        for subscriber, joins in self._catching_up.values():
            if subscriber.receives_joins:
                joins.append(push)

    def reset(self, position: Position) -> list[C]:
        """Continue from `position`, after a gap that history cannot fill.

        Returns the connections whose clients miss publications, which the caller must tell them.
        """
        is_same_history = position.epoch == self.tracker.position.epoch
        self.tracker.set(position)
        complete = [
            subscriber.connection
            for subscriber in self._waiting_for_offset
            if is_same_history and subscriber.start_offset >= position.offset
        ]
        self._add_caught_up()
        return [connection for connection in self.connections if connection not in complete]

    def _add_caught_up(self) -> None:
        waiting, offset = self._waiting_for_offset, self.tracker.offset
        self._waiting_for_offset = [subscriber for subscriber in waiting if subscriber.start_offset > offset]
        for subscriber in waiting:
            if subscriber.start_offset <= offset:
                self._add(subscriber)

    # ---------------------------------------------------------------------------------------------- deliver

    @property
    def has_queued(self) -> bool:
        """Whether messages are queued for delivery."""
        return bool(self._queue)

    def take_batch(self) -> Batch[C]:
        """Take the queued messages, up to BATCH_BYTES, and determine which subscribers get which of them.

        The caller must deliver the batch completely before it takes the next one of this channel.
        """
        first = self._sent_count
        batch: Batch[C] = Batch(self._take_messages())
        if self._may_have_joins:
            has_joins = not all(message.is_publication for message in batch.messages)
            all_count = self._live_count + len(self._kept_aside)
            batch.divides_joins = has_joins and self._join_receivers != all_count
            self._may_have_joins = self.has_queued
        if self._kept_aside:
            self._keep(batch, first)
        if self._groups is None:
            self._groups = self._find_groups()
        groups, recent = self._groups, self._recent
        if self._special_count:
            self._link(batch.messages, groups)
        else:
            self._base = None
        if not recent:
            batch.groups = groups
            return batch
        for group in groups:
            others = [other for other in group.subscribers if other not in recent]
            if others:
                batch.groups.append(group._replace(subscribers=others))
        batch.groups += self._recent_groups(first)
        numbered = enumerate(batch.messages, first)
        last = max((number for number, message in numbered if message.is_publication), default=-1)
        self._recent = {other: None for other in recent if not self._is_in_step(other, last)}
        return batch

    def _link(self, messages: list[ChannelMessage], groups: list[Group[C]]) -> None:
        """Let deltas be made from one publication to the next, if a subscriber uses them."""
        base, uses_delta = self._base, any(group.form.uses_delta for group in groups)
        if uses_delta:
            for message in messages:
                base = message.follow(base)
        self._base = base if uses_delta else None

    def _recent_groups(self, first: int) -> list[Group[C]]:
        found: dict[tuple[Framing, Form, int], list[Subscriber[C]]] = {}
        for subscriber in self._recent:
            skipped = max(subscriber.live_since_count - first, 0)
            key = subscriber.connection.framing, subscriber.form, skipped
            found.setdefault(key, []).append(subscriber)
        return [
            Group(framing, form, subscribers, skipped, has_base=False)
            for (framing, form, skipped), subscribers in found.items()
        ]

    def _is_in_step(self, subscriber: Subscriber[C], last: int) -> bool:
        """Whether a subscriber gets the same of the next batch as the others of its group.

        With deltas it must have the last publication. `last` is how many messages left before that one.
        """
        since = subscriber.live_since_count
        return since <= last if subscriber.form.uses_delta else since <= self._sent_count

    def _take_messages(self) -> list[ChannelMessage]:
        queue = self._queue
        if self.queued_bytes <= BATCH_BYTES:
            messages, size = list(queue), self.queued_bytes
            queue.clear()
        else:
            messages, size = [], 0
            while queue and size <= BATCH_BYTES:
                messages.append(queue.popleft())
                size += messages[-1].size
        self._sent_count += len(messages)
        self.queued_bytes -= size
        return messages

    def _find_groups(self) -> list[Group[C]]:
        found: dict[tuple[Form, Framing], list[Subscriber[C]]] = {}
        for framing, group in self._subscribers.items():
            if not self._special_count:
                found[PLAIN, framing] = list(group.values())
                continue
            for subscriber in group.values():
                found.setdefault((subscriber.form, framing), []).append(subscriber)
        if self._special_count:  # those of one filter one after the other, of any framing
            found = dict(sorted(found.items(), key=lambda one: id(one[0][0].tags_filter)))
        return [Group(framing, form, group) for (form, framing), group in found.items() if group]
