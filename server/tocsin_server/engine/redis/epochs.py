"""Epochs of histories: each publish is given one, in case that its history has to start over."""

from __future__ import annotations

from random import Random

EPOCH_LETTERS = 12
"""48 bits: two epochs are equal with a probability of 1 in 10^14."""

DRAWN_AT_ONCE = 64
"""Drawing them one by one takes as long as packing a publish."""

_AS_LETTERS = bytes.maketrans(b"0123456789", b"ghijklmnop")


class Epochs:
    """Draws epochs. The mutable state is those that were drawn and not taken yet."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._drawn: list[bytes] = []

    def take(self) -> bytes:
        """An epoch that was never taken before."""
        if not self._drawn:
            self._draw()
        return self._drawn.pop()

    def _draw(self) -> None:
        letters = EPOCH_LETTERS * DRAWN_AT_ONCE
        text = (b"%0*x" % (letters, self._random.getrandbits(4 * letters))).translate(_AS_LETTERS)
        self._drawn = [text[first : first + EPOCH_LETTERS] for first in range(0, letters, EPOCH_LETTERS)]
