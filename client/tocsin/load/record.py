"""What one connection heard, by the numbers its channel's publications carry, and what it was told (pure)."""

from __future__ import annotations

from msgspec import Struct, field

from .ranges import Ranges


class Hole(Struct):
    """Publications after the number ``after``, up to a position, that a connection cannot expect.

    ``is_start``: it was not there yet; else the server told it, with ``recovered: false`` or a ``gap``. In a
    channel without a log (an empty epoch) nobody can say where it ends: at the next message heard.
    """

    after: int
    epoch: str
    offset: int
    is_start: bool = False


class Account(Struct):
    """A record, as a worker hands it over."""

    channel: int
    heard: list[tuple[int, int]] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    duplicated: int = 0
    late: list[int] = field(default_factory=list)
    is_connected: bool = True


class Record:
    """It counts as it hears; ``late`` are the numbers that came after a greater one."""

    __slots__ = ("channel", "duplicated", "has_begun", "heard", "holes", "late")

    def __init__(self, channel: int) -> None:
        self.channel = channel
        self.heard = Ranges()
        self.holes: list[Hole] = []
        self.duplicated = 0
        self.late: list[int] = []
        self.has_begun = False

    def hear(self, number: int) -> None:
        """Take in one publication."""
        if number > self.heard.top:
            self.heard.add(number)
        elif number in self.heard:
            self.duplicated += 1
        else:
            self.late.append(number)
            self.heard.add(number)

    def miss(self, epoch: str, offset: int, *, is_start: bool = False) -> None:
        """Nothing up to this position is to be expected, apart from what was heard."""
        self.holes.append(Hole(self.heard.top, epoch, offset, is_start))

    def account(self, *, is_connected: bool) -> Account:
        """Hand over everything."""
        return Account(
            self.channel, self.heard.pairs, self.holes, self.duplicated, self.late, is_connected=is_connected
        )
