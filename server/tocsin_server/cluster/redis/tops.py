"""Tops: how far this node has seen the logs that it hears, to notice a Redis that lost their ends."""

from __future__ import annotations

from tocsin_server.cluster.broker import NO_POSITION
from tocsin_server.core.protocol import Position


class Tops:
    """Only channels that are watched have one, and it never falls within one epoch."""

    def __init__(self) -> None:
        self._tops: dict[str, Position] = {}

    def watch(self, channel: str) -> None:
        """Remember a channel's top from now on. Idempotent."""
        self._tops.setdefault(channel, NO_POSITION)

    def drop(self, channel: str) -> None:
        """Remember a channel's top no more. Idempotent."""
        self._tops.pop(channel, None)

    def see(self, channel: str, offset: int, epoch: str) -> None:
        """A publication, an answer or a top was seen."""
        known = self._tops.get(channel)
        if known is not None and epoch and (epoch != known.epoch or offset > known.offset):
            self._tops[channel] = Position(offset, epoch)

    def known(self, channel: str) -> Position:
        """The highest position seen; NO_POSITION if none."""
        return self._tops.get(channel, NO_POSITION)
