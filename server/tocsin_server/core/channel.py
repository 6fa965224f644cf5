"""One channel on one node: who hears it here, what was heard of it, and what waits to be written.

A publication that is heard joins the last batch, unless the channel's members changed since that batch was
begun. So a batch has one roster, everybody in it gets all of it, and a peer that subscribes between two
publications gets exactly what comes after its reply.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tocsin_server.core.protocol import Position, Publication, Push, encode_push
from tocsin_server.core.stream import History, Stream, Verdict, merge

BATCH_BYTES = 65_536
"""Past this size a batch is full: well below what may wait for one peer, so no burst alone closes it."""


class Framing(Protocol):
    """How the peers of one transport want what they all get: packed once, then written to each."""

    def pack(self, channel: str, items: Sequence[Item]) -> Any:
        """Return one payload that carries all `items`, in order."""


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

    __slots__ = ("epoch", "line", "publication")

    def __init__(self, push: Push, epoch: str = "") -> None:
        self.line = encode_push(push)
        self.publication = push.pub
        self.epoch = epoch


class Member:
    """A peer's place in a channel. Once retired it writes nothing, even in a round that is under way."""

    __slots__ = ("hears_joins", "peer", "start", "write")

    def __init__(self, peer: Listener, start: int, hears_joins: bool) -> None:
        self.peer = peer
        self.write = peer.write
        self.start = start
        self.hears_joins = hears_joins

    def retire(self) -> None:
        """Write no more."""
        self.write = _discard


def _discard(_payload: Any) -> None:
    """Stand in for the writing of a member that left."""


Roster = list[tuple[Framing, list[Member]]]


class Batch:
    """Items that leave together, and everybody who gets them. `size` is in bytes."""

    __slots__ = ("items", "roster", "size")

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.items: list[Item] = []
        self.size = 0


class Channel:
    """One channel on one node.

    Synchronous: every method is one step, and the caller schedules what is to be written.

        enter() --merge()--> admit() … leave()      hear() -> batches -> take_batch()
    """

    __slots__ = (
        "_ahead",
        "_batches",
        "_entering",
        "_held",
        "_members",
        "_roster",
        "name",
        "stream",
        "waiting_bytes",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.stream = Stream()
        self._members: dict[Framing, dict[Listener, Member]] = {}
        self._entering = 0
        self._held: list[tuple[Publication, str]] = []
        self._ahead: list[Member] = []
        self._batches: deque[Batch] = deque()
        self._roster: Roster | None = None
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
        member = self._members.get(peer.framing, {}).pop(peer, None) or self._pop_ahead(peer)
        if member is None:
            self._stop_holding()
            return
        member.retire()
        self._roster = None

    def _seat(self, member: Member) -> None:
        self._members.setdefault(member.peer.framing, {})[member.peer] = member
        self._roster = None

    def _pop_ahead(self, peer: Listener) -> Member | None:
        for member in self._ahead:
            if member.peer is peer:
                self._ahead.remove(member)
                return member
        return None

    def _stop_holding(self) -> None:
        self._entering -= 1
        if not self._entering:
            self._held.clear()

    # ------------------------------------------------------------------------------------------------ hearing

    def hear(self, publication: Publication, epoch: str) -> Verdict:
        """Take a publication that the engine announced.

        It is written only if it continues what was heard before.
        """
        if not publication.is_logged:
            self._append(Item(Push(self.name, pub=publication)))
            return Verdict.NEXT
        if not self.stream.is_settled:
            self.stream.settle(Position(publication.offset - 1, epoch))
        verdict = self.stream.take(publication.offset, epoch)
        if verdict is Verdict.NEXT:
            if self._entering:
                self._held.append((publication, epoch))
            self._append(Item(Push(self.name, pub=publication), epoch))
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
        """Take a join or leave: for those only who hear such pushes, and never joined with anything else."""
        roster = [
            (framing, hearing)
            for framing, members in self._members.items()
            if (hearing := [member for member in members.values() if member.hears_joins])
        ]
        if roster:
            self._batches.append(Batch(roster))
            self._put(self._batches[-1], Item(push))

    def _append(self, item: Item) -> None:
        if self._roster is None:
            self._roster = [
                (framing, list(members.values())) for framing, members in self._members.items() if members
            ]
        if not self._roster:
            return
        if (
            not self._batches
            or self._batches[-1].roster is not self._roster
            or self._batches[-1].size > BATCH_BYTES
        ):
            self._batches.append(Batch(self._roster))
        self._put(self._batches[-1], item)

    def _put(self, batch: Batch, item: Item) -> None:
        batch.items.append(item)
        batch.size += len(item.line)
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
        return bool(self._batches)

    def take_batch(self) -> Batch:
        """Take what is to be written next.

        The caller writes it wholly before it takes another of this channel.
        """
        batch = self._batches.popleft()
        self.waiting_bytes -= batch.size
        return batch
