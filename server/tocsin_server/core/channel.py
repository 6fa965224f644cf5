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
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tocsin_server.config.channel_options import ChannelOptions
from tocsin_server.core.kept_messages import KeptMessages
from tocsin_server.core.positions import Continuity, History, PositionTracker, merge
from tocsin_server.protocol.codec import Codec
from tocsin_server.protocol.messages import Position, Publication, Push
from tocsin_server.protocol.payloads import PayloadNotJson

HELD_LIMIT = 1000
"""Publications held for subscriptions being set up. If history ends before them, it is read again."""

HELD_BYTES = 2 * 1_048_576
"""Payload bytes of these publications, at most, unless there is only one."""

BATCH_BYTES = 65_536
"""The size at which a batch is full. By default it is far below a connection's queue limit."""


class Framing(Protocol):
    """How a transport packs messages that many subscribers share: once, then written to each."""

    @property
    def codec(self) -> Codec:
        """How the messages are encoded."""

    def pack(self, channel: str, messages: Sequence[ChannelMessage]) -> Any:
        """Return one payload that carries all `messages` in order. `len()` of it is its size in bytes.

        Raises PayloadNotJson where the codec cannot encode one of them.
        """


class SubscriberConnection(Protocol):
    """What a channel needs of a connection."""

    @property
    def framing(self) -> Framing:
        """How the connection's transport packs shared messages."""

    @property
    def write(self) -> Callable[[Any], object]:
        """Write a packed payload. Never waits; a slow client is disconnected by its transport."""


C = TypeVar("C", bound=SubscriberConnection)


class ChannelMessage:
    """A push to a channel's subscribers. Its encoding is made on first use and kept, per codec."""

    __slots__ = ("_codec", "_encoding", "_others", "epoch", "published_at", "push", "size")

    def __init__(self, push: Push, epoch: str = "", published_at: float = 0.0) -> None:
        self.push = push
        self.epoch = epoch
        """The epoch of the publication's offset; empty where no history holds it."""
        self.published_at = published_at
        """Monotonic seconds, 0 if unknown."""
        self.size = push.size
        """The payload's approximate size in bytes, for limits."""
        self._codec: Codec | None = None  # the first codec that was used, and its encoding
        self._encoding = b""
        self._others: dict[Codec, bytes] | None = None

    @property
    def is_publication(self) -> bool:
        """Whether every subscriber gets it; joins and leaves go only to subscribers that receive joins."""
        return self.push.pub is not None

    def encoded(self, codec: Codec) -> bytes:
        """Return the push without its envelope, encoded at most once per codec. Raises PayloadNotJson."""
        if self._codec is codec:
            return self._encoding
        if self._codec is None:
            self._codec, self._encoding = codec, codec.encode_push(self.push)
            return self._encoding
        if self._others is None:
            self._others = {}
        if codec not in self._others:
            self._others[codec] = codec.encode_push(self.push)
        return self._others[codec]


def encodable(messages: Sequence[ChannelMessage], codec: Codec) -> Sequence[ChannelMessage]:
    """Return the messages before the first that a codec cannot encode."""
    for index, message in enumerate(messages):
        try:
            message.encoded(codec)
        except PayloadNotJson:
            return messages[:index]
    return messages


class Subscriber(Generic[C]):
    """A connection in a channel's fan-out. After `retire` nothing is written to it, even mid-batch."""

    __slots__ = ("connection", "live_since_count", "receives_joins", "start_offset", "write")

    def __init__(self, connection: C, start_offset: int, receives_joins: bool) -> None:
        self.connection = connection
        self.write = connection.write
        self.start_offset = start_offset
        """The client has everything up to this offset."""
        self.live_since_count = 0
        """The channel's message count when this subscriber went live."""
        self.receives_joins = receives_joins

    @property
    def is_retired(self) -> bool:
        """Whether nothing is written to it any longer."""
        return self.write is _discard

    def retire(self) -> None:
        """Stop writing to this subscriber."""
        self.write = _discard


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


def _discard(_payload: Any) -> None:
    """Replace the `write` of a retired subscriber."""


class Batch(Generic[C]):
    """Messages that are delivered together, and for each framing which subscribers get which of them."""

    __slots__ = ("messages", "published_at", "recipients")

    def __init__(self, messages: list[ChannelMessage]) -> None:
        self.messages = messages
        self.published_at = next((message.published_at for message in messages if message.published_at), 0.0)
        """When its oldest publication with a known time was published; 0 if no time is known."""
        self.recipients: list[tuple[Framing, list[Subscriber[C]], list[ChannelMessage]]] = []


class Channel(Generic[C]):
    """One channel on one node."""

    __slots__ = (
        "_catching_up",
        "_groups",
        "_held",
        "_join_receivers",
        "_kept_aside",
        "_live_with_queued",
        "_queue",
        "_sent_count",
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
        self._sent_count = 0  # messages that have left the queue; plus the queue's length: all received
        self._subscribers: dict[Framing, dict[C, Subscriber[C]]] = {}
        self._groups: list[tuple[Framing, list[Subscriber[C]]]] | None = None  # the same as lists, cached
        self._live_with_queued: dict[Subscriber[C], None] = {}  # went live while messages were queued
        self._waiting_for_offset: list[
            Subscriber[C]
        ] = []  # their replies reach beyond what was received here
        self._join_receivers = 0
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
    def _live_count(self) -> int:
        return sum(map(len, self._subscribers.values()))

    @property
    def subscriber_count(self) -> int:
        """How many subscribers it has here, with those that are being set up."""
        return len(self) + self._subscribing - len(self._catching_up)  # these count as both

    @property
    def is_wanted(self) -> bool:
        """Whether the channel has a subscriber here, or a subscription is being set up."""
        return bool(self._subscribing or self._waiting_for_offset or self._is_delivered)

    @property
    def _is_delivered(self) -> bool:
        """Whether a message must be queued for anyone."""
        return bool(self._kept_aside) or any(self._subscribers.values())

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
        held = [publication for publication, epoch in self._held if epoch == history.top.epoch]
        merged = merge(history, held)
        if not self.tracker.is_known:
            self.tracker.set(merged.top)
        elif merged.top.epoch == self.tracker.position.epoch and merged.top.offset < self.tracker.offset:
            return None
        return merged

    def go_live(
        self, connection: C, start_offset: int, receives_joins: bool, *, catches_up: bool = False
    ) -> None:
        """Deliver to `connection`, which has everything up to `start_offset`, what follows.

        If it `catches_up`, publications are still held, and `catch_up` must follow.
        """
        subscriber = Subscriber(connection, start_offset, receives_joins)
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
            return CaughtUp(self._messages(page))
        del self._catching_up[connection]
        subscriber.start_offset = merged.top.offset
        self._join_live(subscriber)
        return CaughtUp([*self._messages(merged), *map(ChannelMessage, joins)], is_complete=True)

    def _messages(self, history: History) -> list[ChannelMessage]:
        epoch = history.top.epoch
        return [ChannelMessage(Push(self.name, pub=one), epoch) for one in history.publications]

    def unsubscribe(self, connection: C) -> None:
        """Stop delivering to `connection`, or give up a subscription that was being set up."""
        subscriber = self._subscribers.get(connection.framing, {}).pop(connection, None)
        if connection in self._kept_aside:
            subscriber = self._kept_aside.pop(connection).subscriber
        if subscriber is not None:
            subscriber.retire()
            self._join_receivers -= subscriber.receives_joins
            self._live_with_queued.pop(subscriber, None)
            self._groups = None
        elif not self._remove_waiting_for_offset(connection):
            self._catching_up.pop(connection, None)
            self._stop_holding()

    def keep_aside(self, connection: C, options: ChannelOptions) -> None:
        """Keep messages for a live subscriber from the next batch on, until `release`."""
        subscriber = self._subscribers.get(connection.framing, {}).pop(connection, None)
        if subscriber is not None:
            self._live_with_queued.pop(subscriber, None)
            self._kept_aside[connection] = KeptAside(subscriber, KeptMessages(options))
            self._groups = None

    def release(self, connection: C) -> KeptMessages | None:
        """Deliver to a subscriber again. Returns what was kept, to be written in the same step."""
        found = self._kept_aside.pop(connection, None)
        if found is None:
            return None
        subscriber = found.subscriber
        if subscriber.live_since_count > self._sent_count:
            self._live_with_queued[subscriber] = None
        subscriber.write = connection.write
        self._subscribers.setdefault(connection.framing, {})[connection] = subscriber
        self._groups = None
        return found.kept

    def _keep(self, messages: list[ChannelMessage], first: int) -> None:
        for subscriber, kept in self._kept_aside.values():
            skipped = max(subscriber.live_since_count - first, 0)
            for message in messages[skipped:]:
                if message.is_publication or subscriber.receives_joins:
                    kept.add(message)

    def change_write(self, connection: C) -> None:
        """Write to a subscriber with its connection's present `write`."""
        subscriber = self._subscribers.get(connection.framing, {}).get(connection)
        if subscriber is not None:
            subscriber.write = connection.write

    def _add(self, subscriber: Subscriber[C]) -> None:
        subscriber.live_since_count = self._sent_count + len(self._queue)
        if self._queue:
            self._live_with_queued[subscriber] = None
        self._join_receivers += subscriber.receives_joins
        self._subscribers.setdefault(subscriber.connection.framing, {})[subscriber.connection] = subscriber
        self._groups = None

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

    def receive(self, publication: Publication, epoch: str, published_at: float = 0.0) -> Continuity:
        """Queue a publication that the engine sent, if it continues what was received before.

        Any other result than NEXT leaves the channel unchanged; after GAP and OTHER_EPOCH the caller must
        backfill.
        """
        if not publication.has_offset:
            self._append(ChannelMessage(Push(self.name, pub=publication), "", published_at))
            return Continuity.NEXT
        if not self.tracker.is_known:
            self.tracker.set(Position(publication.offset - 1, epoch))
        continuity = self.tracker.advance(publication.offset, epoch)
        if continuity is Continuity.NEXT:
            if self._subscribing:
                self._hold(publication, epoch)
            self._append(ChannelMessage(Push(self.name, pub=publication), epoch, published_at))
            self._add_caught_up()
        return continuity

    def receive_join_leave(self, push: Push) -> None:
        """Queue a join or leave, for the subscribers that receive them."""
        if self._join_receivers:
            self._append(ChannelMessage(push))
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

    def _append(self, message: ChannelMessage) -> None:
        if self._is_delivered:
            self._queue.append(message)
            self.queued_bytes += message.size

    def _add_caught_up(self) -> None:
        if self._waiting_for_offset:
            waiting, offset = self._waiting_for_offset, self.tracker.offset
            self._waiting_for_offset = [
                subscriber for subscriber in waiting if subscriber.start_offset > offset
            ]
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
        if self._kept_aside:
            self._keep(batch.messages, first)
        late = self._live_with_queued
        for framing, subscribers in self._subscriber_groups():
            early = [other for other in subscribers if other not in late] if late else subscribers
            batch.recipients += self._group_by_joins(framing, early, batch.messages)
        by_start: dict[tuple[Framing, int], list[Subscriber[C]]] = {}
        for subscriber in late:
            skipped = subscriber.live_since_count - first
            by_start.setdefault((subscriber.connection.framing, skipped), []).append(subscriber)
        for (framing, skipped), group in by_start.items():
            batch.recipients += self._group_by_joins(framing, group, batch.messages[skipped:])
        self._live_with_queued = {
            subscriber: None for subscriber in late if subscriber.live_since_count > self._sent_count
        }
        return batch

    def _group_by_joins(
        self, framing: Framing, subscribers: list[Subscriber[C]], messages: list[ChannelMessage]
    ) -> Iterator[tuple[Framing, list[Subscriber[C]], list[ChannelMessage]]]:
        """Divide subscribers into those that receive joins and those that do not, where that matters."""
        publications = [message for message in messages if message.is_publication]
        if len(publications) == len(messages) or self._join_receivers == self._live_count:
            groups = [(subscribers, messages)]
        else:
            groups = [
                ([other for other in subscribers if other.receives_joins], messages),
                ([other for other in subscribers if not other.receives_joins], publications),
            ]
        for group, theirs in groups:
            if group and theirs:
                yield framing, group, theirs

    def _take_messages(self) -> list[ChannelMessage]:
        messages: list[ChannelMessage] = []
        size = 0
        while self._queue and size <= BATCH_BYTES:
            messages.append(self._queue.popleft())
            size += messages[-1].size
        self._sent_count += len(messages)
        self.queued_bytes -= size
        return messages

    def _subscriber_groups(self) -> list[tuple[Framing, list[Subscriber[C]]]]:
        if self._groups is None:
            self._groups = [
                (framing, list(group.values())) for framing, group in self._subscribers.items() if group
            ]
        return self._groups
