"""Contenders that take turns, and how their figures are compared.

A machine changes its speed while a benchmark runs. So turns are short, and a ratio compares the turns of one
round, which follow each other at once. It varies a third as much as the ratio of two medians of long turns.
Processes of the same program differ, too, by up to a tenth: their memory lies elsewhere. So each program is
started several times.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Turns:
    """The figures of contenders, such as CPU microseconds of a request: one for each round."""

    figures: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """The median figure of a contender."""
        return statistics.median(self.figures[name])

    def ratio(self, one: str, other: str) -> float:
        """The median ratio of two contenders in the same round."""
        return statistics.median(
            mine / theirs for mine, theirs in zip(self.figures[one], self.figures[other], strict=True)
        )

    async def take(
        self, names: Sequence[str], turn: Callable[[str], Awaitable[float]], rounds: int, warm_up: int = 1
    ) -> Self:
        """Let `turn(name)` return the figure of one turn, in alternating order. The first rounds warm up."""
        for number in range(warm_up + rounds):
            order: Iterable[str] = names if number % 2 else reversed(names)
            for name in order:
                figure = await turn(name)
                if number >= warm_up:
                    self.figures.setdefault(name, []).append(figure)
        return self
