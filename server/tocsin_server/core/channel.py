"""One channel on one node: who hears it here, what was heard of it, and what waits to be written.

What is heard waits, in one order. A batch takes all of it, for whoever is there when it is taken; each member
knows how many items the channel had had when it was seated, so that one who came while something waited gets
exactly what was heard after its reply. However many come and go, what waits leaves joined.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from tocsin_server.core.positions import Continuity, History, PositionTracker, merge
from tocsin_server.protocol.messages import Position, Publication, Push, encode_push

HELD_LIMIT = 1000
"""Publications held for those who are entering. Whoever reads a log that ends before them reads it again."""

BATCH_BYTES = 65_536
"""Past this size a batch is full: well below what may wait for one peer, so no burst alone closes it."""


class Framing(Protocol):
    """How the peers of one transport want what they all get: packed once, then written to each."""

    def pack(self, channel: str, items: Sequence[ChannelMessage]) -> Any:
        """Return one payload that carries all `items`, in order; its length is in bytes."""


class SubscriberConnection(Protocol):
    """What a channel needs to know of a peer."""

    @property
    def framing(self) -> Framing:
        """How it wants its payloads packed."""

    @property
    def write(self) -> Callable[[Any], object]:
        """Write a payload.

        Never raises and never waits: a peer that is too slow is dropped by its transport.
        """


class ChannelMessage:
    """Something a channel's peers are told, as a line of JSON that all framings share."""

    __slots__ = ("epoch", "line", "publication", "published_at")

    def __init__(self, push: Push, epoch: str = "", published_at: float = 0.0) -> None:
        self.line = encode_push(push)
        self.publication = push.pub
        self.epoch = epoch
        self.published_at = published_at
        """0 where it is not known."""


class Subscriber:
    """A peer's place in a channel. Once retired it writes nothing, even in a round that is under way."""

    __slots__ = ("connection", "joined_at", "receives_joins", "start_offset", "write")

    def __init__(self, peer: SubscriberConnection, start: int, hears_joins: bool) -> None:
        self.connection = peer
        self.write = peer.write
        self.start_offset = start
        self.joined_at = 0
        """How many items the channel had had when it was seated."""
        self.receives_joins = hears_joins

    def retire(self) -> None:
        """Write no more."""
        self.write = _discard


def _discard(_payload: Any) -> None:
    """Stand in for the writing of a member that left."""


SubscriberGroups = list[tuple[Framing, list[Subscriber]]]


class Batch:
    """Items that leave together: for each framing who gets them, and which of them."""

    __slots__ = ("messages", "published_at", "recipients")

    def __init__(self, items: list[ChannelMessage]) -> None:
        self.messages = items
        self.published_at = next((item.published_at for item in items if item.published_at), 0.0)
        """When its oldest publication was made, of those of which it is known; 0 if of none."""
        self.recipients: list[tuple[Framing, list[Subscriber], list[ChannelMessage]]] = []


class Channel:
    """One channel on one node.

    Synchronous: every method is one step, and the caller schedules what is to be written.

        enter() --merge()--> admit() … leave()      hear() -> waiting -> take_batch()
    """

    __slots__ = (
        "_groups",
        "_held",
        "_join_receivers",
        "_joined_mid_batch",
        "_queue",
        "_sent_count",
        "_subscribers",
        "_subscribing",
        "_waiting_for_offset",
        "name",
        "queued_bytes",
        "tracker",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.tracker = PositionTracker()
        self._subscribers: dict[Framing, dict[SubscriberConnection, Subscriber]] = {}
        self._subscribing = 0
        self._held: deque[tuple[Publication, str]] = deque(maxlen=HELD_LIMIT)
        self._waiting_for_offset: list[Subscriber] = []
        self._queue: deque[ChannelMessage] = deque()
        self._sent_count = 0
        self._joined_mid_batch: list[Subscriber] = []
        self._join_receivers = 0
        self._groups: SubscriberGroups | None = None
        self.queued_bytes = 0

    def __len__(self) -> int:
        """How many peers hear the channel here."""
        return sum(map(len, self._subscribers.values())) + len(self._waiting_for_offset)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody here hears the channel or is about to."""
        return bool(self._subscribing or self._waiting_for_offset or any(self._subscribers.values()))

    @property
    def connections(self) -> list[SubscriberConnection]:
        """Everybody who hears the channel here."""
        seated = [peer for members in self._subscribers.values() for peer in members]
        return seated + [member.connection for member in self._waiting_for_offset]

    @property
    def held_bytes(self) -> int:
        """How much is held for those who are entering."""
        return sum(len(publication.data) for publication, _ in self._held)

    # --------------------------------------------------------------------------------------- coming and going

    def begin_subscribe(self) -> None:
        """Hold what is heard from now on, for somebody about to be admitted.

        Must be followed by `admit` or `leave`.
        """
        self._subscribing += 1

    def merge(self, history: History) -> History | None:
        """Continue what was read with what was heard meanwhile.

        None if that leaves a hole before what has been heard here: read again, the log knows by now.
        """
        held = [publication for publication, epoch in self._held if epoch == history.top.epoch]
        merged = merge(history, held)
        if not self.tracker.is_known:
            self.tracker.set(merged.top)
        elif merged.top.epoch == self.tracker.position.epoch and merged.top.offset < self.tracker.offset:
            return None
        return merged

    def go_live(self, peer: SubscriberConnection, start: int, hears_joins: bool) -> None:
        """Let `peer`, which has everything up to offset `start`, hear what comes after it."""
        self._stop_holding()
        member = Subscriber(peer, start, hears_joins)
        if start > self.tracker.offset and self.tracker.is_known:
            self._waiting_for_offset.append(member)  # the log told it more than this node has heard yet
        else:
            self._add(member)

    def unsubscribe(self, peer: SubscriberConnection) -> None:
        """Stop writing to `peer`, or forget that it was about to be admitted."""
        member = self._subscribers.get(peer.framing, {}).pop(peer, None)
        if member is not None:
            member.retire()
            self._join_receivers -= member.receives_joins
            self._joined_mid_batch = [late for late in self._joined_mid_batch if late is not member]
            self._groups = None
        elif not self._remove_waiting_for_offset(peer):
            self._stop_holding()

    def _add(self, member: Subscriber) -> None:
        member.joined_at = self._sent_count + len(self._queue)
        if self._queue:
            self._joined_mid_batch.append(member)
        self._join_receivers += member.receives_joins
        self._subscribers.setdefault(member.connection.framing, {})[member.connection] = member
        self._groups = None

    def _remove_waiting_for_offset(self, peer: SubscriberConnection) -> bool:
        for member in self._waiting_for_offset:
            if member.connection is peer:
                self._waiting_for_offset.remove(member)
                return True
        return False

    def _stop_holding(self) -> None:
        self._subscribing -= 1
        if not self._subscribing:
            self._held.clear()

    # ------------------------------------------------------------------------------------------------ hearing

    def receive(self, publication: Publication, epoch: str, published_at: float = 0.0) -> Continuity:
        """Take a publication that the engine announced.

        It is written only if it continues what was heard before.
        """
        if not publication.is_logged:
            self._append(ChannelMessage(Push(self.name, pub=publication), "", published_at))
            return Continuity.NEXT
        if not self.tracker.is_known:
            self.tracker.set(Position(publication.offset - 1, epoch))
        verdict = self.tracker.advance(publication.offset, epoch)
        if verdict is Continuity.NEXT:
            if self._subscribing:
                self._held.append((publication, epoch))
            self._append(ChannelMessage(Push(self.name, pub=publication), epoch, published_at))
            self._catch_up()
        return verdict

    def reset(self, position: Position) -> list[SubscriberConnection]:
        """Continue from `position`, after a hole that the log cannot mend.

        Returns everybody who must be told of it, since they were not told everything up to there.
        """
        is_same_log = position.epoch == self.tracker.position.epoch
        self.tracker.set(position)
        whole = [
            member.connection
            for member in self._waiting_for_offset
            if is_same_log and member.start_offset >= position.offset
        ]
        self._catch_up()
        return [peer for peer in self.connections if peer not in whole]

    def receive_join_leave(self, push: Push) -> None:
        """Take a join or leave, for those who hear such pushes."""
        if self._join_receivers:
            self._append(ChannelMessage(push))

    def _append(self, item: ChannelMessage) -> None:
        if any(self._subscribers.values()):
            self._queue.append(item)
            self.queued_bytes += len(item.line)

    def _catch_up(self) -> None:
        if self._waiting_for_offset:
            caught_up = [
                member for member in self._waiting_for_offset if member.start_offset <= self.tracker.offset
            ]
            self._waiting_for_offset = [
                member for member in self._waiting_for_offset if member.start_offset > self.tracker.offset
            ]
            for member in caught_up:
                self._add(member)

    # ------------------------------------------------------------------------------------------------ writing

    @property
    def has_queued(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._queue)

    def take_batch(self) -> Batch:
        """Take what is to be written next, for everybody who was there when it was heard.

        The caller writes it wholly before it takes another of this channel.
        """
        first = self._sent_count
        batch = Batch(self._take_messages())
        is_for_all = not any(item.publication is None for item in batch.messages)
        for framing, members in self._subscriber_groups():
            if is_for_all and not self._joined_mid_batch:
                batch.recipients.append((framing, members, batch.messages))
            else:
                batch.recipients += _group_by_messages(framing, members, batch.messages, first)
        self._joined_mid_batch = [
            member for member in self._joined_mid_batch if member.joined_at > self._sent_count
        ]
        return batch

    def _take_messages(self) -> list[ChannelMessage]:
        items: list[ChannelMessage] = []
        size = 0
        while self._queue and size <= BATCH_BYTES:
            items.append(self._queue.popleft())
            size += len(items[-1].line)
        self._sent_count += len(items)
        self.queued_bytes -= size
        return items

    def _subscriber_groups(self) -> SubscriberGroups:
        if self._groups is None:
            self._groups = [
                (framing, list(members.values())) for framing, members in self._subscribers.items() if members
            ]
        return self._groups


def _group_by_messages(
    framing: Framing, members: list[Subscriber], items: list[ChannelMessage], first: int
) -> Iterator[tuple[Framing, list[Subscriber], list[ChannelMessage]]]:
    """Who gets which of the items: not those from before one came, and joins only who hears them."""
    groups: dict[tuple[int, bool], list[Subscriber]] = {}
    for member in members:
        groups.setdefault((max(member.joined_at - first, 0), member.receives_joins), []).append(member)
    for (skipped, hears_joins), group in groups.items():
        told = [item for item in items[skipped:] if hears_joins or item.publication is not None]
        if told:
            yield framing, group, told
