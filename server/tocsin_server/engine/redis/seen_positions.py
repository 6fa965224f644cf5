"""Tops: how far this node has seen the logs that it hears, to notice a Redis that lost their ends."""

from __future__ import annotations

from typing import NamedTuple


class Top(NamedTuple):
    """A position, and the stamp of the publication that was seen there (see clock); 0 if it was not seen."""

    offset: int
    epoch: str
    stamp: int = 0


UNSEEN = Top(0, "")


class Tops:
    """Only channels that are watched have one, and it never falls within one epoch."""

    def __init__(self) -> None:
        self._tops: dict[str, Top] = {}

    def watch(self, channel: str) -> None:
        """Remember a channel's top from now on. Idempotent."""
        self._tops.setdefault(channel, UNSEEN)

    def drop(self, channel: str) -> None:
        """Remember a channel's top no more. Idempotent."""
        self._tops.pop(channel, None)

    def see(self, channel: str, offset: int, epoch: str, stamp: int = 0) -> bool:
        """A publication, an answer or a top was seen. False if another publication was seen there before."""
        known = self._tops.get(channel)
        if known is None or not epoch:
            return True
        if offset > known.offset or epoch != known.epoch:
            self._tops[channel] = Top(offset, epoch, stamp)
        elif offset == known.offset and stamp:
            if known.stamp:
                return stamp == known.stamp
            self._tops[channel] = Top(offset, epoch, stamp)
        return True

    def known(self, channel: str) -> Top:
        """The highest that was seen; UNSEEN if none."""
        return self._tops.get(channel, UNSEEN)
