"""One channel on one node: who hears it here, what was heard of it, and what waits to be written.

What is heard waits, in one order. A batch takes all of it, for whoever is there when it is taken; each member
knows how many items the channel had had when it was seated, so that one who came while something waited gets
exactly what was heard after its reply. However many come and go, what waits leaves joined.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from tocsin_server.core.positions import History, Stream, Verdict, merge
from tocsin_server.protocol.messages import Position, Publication, Push, encode_push

HELD = 1000
"""Publications held for those who are entering. Whoever reads a log that ends before them reads it again."""

BATCH_BYTES = 65_536
"""Past this size a batch is full: well below what may wait for one peer, so no burst alone closes it."""


class Framing(Protocol):
    """How the peers of one transport want what they all get: packed once, then written to each."""

    def pack(self, channel: str, items: Sequence[Item]) -> Any:
        """Return one payload that carries all `items`, in order; its length is in bytes."""


class Listener(Protocol):
    """What a channel needs to know of a peer."""

    @property
    def framing(self) -> Framing:
        """How it wants its payloads packed."""

    @property
    def write(self) -> Callable[[Any], object]:
        """Write a payload.

        Never raises and never waits: a peer that is too slow is dropped by its transport.
        """


class Item:
    """Something a channel's peers are told, as a line of JSON that all framings share."""

    __slots__ = ("epoch", "line", "publication", "published_at")

    def __init__(self, push: Push, epoch: str = "", published_at: float = 0.0) -> None:
        self.line = encode_push(push)
        self.publication = push.pub
        self.epoch = epoch
        self.published_at = published_at
        """0 where it is not known."""


class Member:
    """A peer's place in a channel. Once retired it writes nothing, even in a round that is under way."""

    __slots__ = ("hears_joins", "peer", "since", "start", "write")

    def __init__(self, peer: Listener, start: int, hears_joins: bool) -> None:
        self.peer = peer
        self.write = peer.write
        self.start = start
        self.since = 0
        """How many items the channel had had when it was seated."""
        self.hears_joins = hears_joins

    def retire(self) -> None:
        """Write no more."""
        self.write = _discard


def _discard(_payload: Any) -> None:
    """Stand in for the writing of a member that left."""


Seats = list[tuple[Framing, list[Member]]]


class Batch:
    """Items that leave together: for each framing who gets them, and which of them."""

    __slots__ = ("items", "published_at", "roster")

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.published_at = next((item.published_at for item in items if item.published_at), 0.0)
        """When its oldest publication was made, of those of which it is known; 0 if of none."""
        self.roster: list[tuple[Framing, list[Member], list[Item]]] = []


class Channel:
    """One channel on one node.

    Synchronous: every method is one step, and the caller schedules what is to be written.

        enter() --merge()--> admit() … leave()      hear() -> waiting -> take_batch()
    """

    __slots__ = (
        "_ahead",
        "_entering",
        "_held",
        "_join_hearers",
        "_late",
        "_members",
        "_roster",
        "_taken",
        "_waiting",
        "name",
        "stream",
        "waiting_bytes",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.stream = Stream()
        self._members: dict[Framing, dict[Listener, Member]] = {}
        self._entering = 0
        self._held: deque[tuple[Publication, str]] = deque(maxlen=HELD)
        self._ahead: list[Member] = []
        self._waiting: deque[Item] = deque()
        self._taken = 0
        self._late: list[Member] = []
        self._join_hearers = 0
        self._roster: Seats | None = None
        self.waiting_bytes = 0

    def __len__(self) -> int:
        """How many peers hear the channel here."""
        return sum(map(len, self._members.values())) + len(self._ahead)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody here hears the channel or is about to."""
        return bool(self._entering or self._ahead or any(self._members.values()))

    @property
    def listeners(self) -> list[Listener]:
        """Everybody who hears the channel here."""
        seated = [peer for members in self._members.values() for peer in members]
        return seated + [member.peer for member in self._ahead]

    @property
    def held_bytes(self) -> int:
        """How much is held for those who are entering."""
        return sum(len(publication.data) for publication, _ in self._held)

    # --------------------------------------------------------------------------------------- coming and going

    def enter(self) -> None:
        """Hold what is heard from now on, for somebody about to be admitted.

        Must be followed by `admit` or `leave`.
        """
        self._entering += 1

    def merge(self, history: History) -> History | None:
        """Continue what was read with what was heard meanwhile.

        None if that leaves a hole before what has been heard here: read again, the log knows by now.
        """
        held = [publication for publication, epoch in self._held if epoch == history.top.epoch]
        merged = merge(history, held)
        if not self.stream.is_settled:
            self.stream.settle(merged.top)
        elif merged.top.epoch == self.stream.position.epoch and merged.top.offset < self.stream.offset:
            return None
        return merged

    def admit(self, peer: Listener, start: int, hears_joins: bool) -> None:
        """Let `peer`, which has everything up to offset `start`, hear what comes after it."""
        self._stop_holding()
        member = Member(peer, start, hears_joins)
        if start > self.stream.offset and self.stream.is_settled:
            self._ahead.append(member)  # the log told it more than this node has heard yet
        else:
            self._seat(member)

    def leave(self, peer: Listener) -> None:
        """Stop writing to `peer`, or forget that it was about to be admitted."""
        member = self._members.get(peer.framing, {}).pop(peer, None)
        if member is not None:
            member.retire()
            self._join_hearers -= member.hears_joins
            self._late = [late for late in self._late if late is not member]
            self._roster = None
        elif not self._pop_ahead(peer):
            self._stop_holding()

    def _seat(self, member: Member) -> None:
        member.since = self._taken + len(self._waiting)
        if self._waiting:
            self._late.append(member)
        self._join_hearers += member.hears_joins
        self._members.setdefault(member.peer.framing, {})[member.peer] = member
        self._roster = None

    def _pop_ahead(self, peer: Listener) -> bool:
        for member in self._ahead:
            if member.peer is peer:
                self._ahead.remove(member)
                return True
        return False

    def _stop_holding(self) -> None:
        self._entering -= 1
        if not self._entering:
            self._held.clear()

    # ------------------------------------------------------------------------------------------------ hearing

    def hear(self, publication: Publication, epoch: str, published_at: float = 0.0) -> Verdict:
        """Take a publication that the engine announced.

        It is written only if it continues what was heard before.
        """
        if not publication.is_logged:
            self._append(Item(Push(self.name, pub=publication), "", published_at))
            return Verdict.NEXT
        if not self.stream.is_settled:
            self.stream.settle(Position(publication.offset - 1, epoch))
        verdict = self.stream.take(publication.offset, epoch)
        if verdict is Verdict.NEXT:
            if self._entering:
                self._held.append((publication, epoch))
            self._append(Item(Push(self.name, pub=publication), epoch, published_at))
            self._catch_up()
        return verdict

    def restart(self, position: Position) -> list[Listener]:
        """Continue from `position`, after a hole that the log cannot mend.

        Returns everybody who must be told of it, since they were not told everything up to there.
        """
        is_same_log = position.epoch == self.stream.position.epoch
        self.stream.settle(position)
        whole = [member.peer for member in self._ahead if is_same_log and member.start >= position.offset]
        self._catch_up()
        return [peer for peer in self.listeners if peer not in whole]

    def hear_presence(self, push: Push) -> None:
        """Take a join or leave, for those who hear such pushes."""
        if self._join_hearers:
            self._append(Item(push))

    def _append(self, item: Item) -> None:
        if any(self._members.values()):
            self._waiting.append(item)
            self.waiting_bytes += len(item.line)

    def _catch_up(self) -> None:
        if self._ahead:
            caught_up = [member for member in self._ahead if member.start <= self.stream.offset]
            self._ahead = [member for member in self._ahead if member.start > self.stream.offset]
            for member in caught_up:
                self._seat(member)

    # ------------------------------------------------------------------------------------------------ writing

    @property
    def is_waiting(self) -> bool:
        """Whether anything waits to be written."""
        return bool(self._waiting)

    def take_batch(self) -> Batch:
        """Take what is to be written next, for everybody who was there when it was heard.

        The caller writes it wholly before it takes another of this channel.
        """
        first = self._taken
        batch = Batch(self._take_items())
        is_for_all = not any(item.publication is None for item in batch.items)
        for framing, members in self._seats():
            if is_for_all and not self._late:
                batch.roster.append((framing, members, batch.items))
            else:
                batch.roster += _sorted_out(framing, members, batch.items, first)
        self._late = [member for member in self._late if member.since > self._taken]
        return batch

    def _take_items(self) -> list[Item]:
        items: list[Item] = []
        size = 0
        while self._waiting and size <= BATCH_BYTES:
            items.append(self._waiting.popleft())
            size += len(items[-1].line)
        self._taken += len(items)
        self.waiting_bytes -= size
        return items

    def _seats(self) -> Seats:
        if self._roster is None:
            self._roster = [
                (framing, list(members.values())) for framing, members in self._members.items() if members
            ]
        return self._roster


def _sorted_out(
    framing: Framing, members: list[Member], items: list[Item], first: int
) -> Iterator[tuple[Framing, list[Member], list[Item]]]:
    """Who gets which of the items: not those from before one came, and joins only who hears them."""
    groups: dict[tuple[int, bool], list[Member]] = {}
    for member in members:
        groups.setdefault((max(member.since - first, 0), member.hears_joins), []).append(member)
    for (skipped, hears_joins), group in groups.items():
        told = [item for item in items[skipped:] if hears_joins or item.publication is not None]
        if told:
            yield framing, group, told
