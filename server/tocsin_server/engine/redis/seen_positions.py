"""Seen positions: the newest position that this node has seen in each channel.

They reveal that Redis has lost the end of a history, as after a failover or a restart.
"""

from __future__ import annotations

from msgspec import Struct


class SeenPosition(Struct, frozen=True, gc=False):
    """A position and the stamp of the publication there (see clock). The stamp is 0 if it is unknown."""

    offset: int
    epoch: str
    stamp: int = 0


UNSEEN = SeenPosition(0, "")


class SeenPositions:
    """Seen positions of the channels to which this node is subscribed.

    The mutable state is one SeenPosition for each tracked channel; within one epoch its offset never
    decreases.
    """

    def __init__(self) -> None:
        self._positions: dict[str, SeenPosition] = {}

    def track(self, channel: str) -> None:
        """Remember the positions of a channel from now on. Idempotent."""
        self._positions.setdefault(channel, UNSEEN)

    def untrack(self, channel: str) -> None:
        """Forget a channel. Idempotent."""
        self._positions.pop(channel, None)

    def record(self, channel: str, offset: int, epoch: str, stamp: int = 0) -> bool:
        """Record a position from a publication, a reply or a top.

        Returns False if another publication was seen at the same position before.
        """
        latest = self._positions.get(channel)
        if latest is None or not epoch:
            return True
        if offset > latest.offset or epoch != latest.epoch:
            self._positions[channel] = SeenPosition(offset, epoch, stamp)
        elif offset == latest.offset and stamp:
            if latest.stamp:
                return stamp == latest.stamp
            self._positions[channel] = SeenPosition(offset, epoch, stamp)
        return True

    def receive(self, channel: str, offset: int, epoch: str, stamp: int) -> bool:
        """Record the position of a received message, if it continues the seen position. Returns as `record`.

        The others say nothing about Redis' history: an earlier message is missing, or another program
        published a message with an invented position. The node reads the history because of them, and records
        what it read.
        """
        latest = self._positions.get(channel, UNSEEN)
        if epoch != latest.epoch or offset > latest.offset + 1:
            return True
        return self.record(channel, offset, epoch, stamp)

    def latest(self, channel: str) -> SeenPosition:
        """The newest position that was seen, or UNSEEN."""
        return self._positions.get(channel, UNSEEN)
