"""CPU per delivery, of contenders that take turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack

from tests.bench.worker import run_worker

TURNS = 15


async def cpu_per_delivery(
    contenders: Sequence[str], count: int, publications: int, burst: int = 1
) -> dict[str, float]:
    """Median microseconds of a contender's CPU (user and kernel) per publication and subscriber."""
    async with AsyncExitStack() as stack:
        helpers = {
            name: await stack.enter_async_context(run_worker("servers", name, count)) for name in contenders
        }
        figures: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(TURNS + 1):
            for name, contender in helpers.items():
                (seconds,) = await contender.call(publications, burst)
                if turn:  # the first one warms up
                    figures[name].append(seconds * 1e6 / (publications * burst * count))
    return {name: statistics.median(values) for name, values in figures.items()}
