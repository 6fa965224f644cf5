"""CPU time per delivery. The contenders take turns."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack

from tests.support.worker import run_worker

ROUNDS = 15


async def cpu_per_delivery(
    contenders: Sequence[str], count: int, publications: int, burst: int = 1
) -> dict[str, float]:
    """The median CPU time (user and kernel) per publication and subscriber, in microseconds."""
    async with AsyncExitStack() as stack:
        contender_processes = {
            name: await stack.enter_async_context(run_worker("tests.bench.servers", name, count))
            for name in contenders
        }
        figures: dict[str, list[float]] = {name: [] for name in contenders}
        for round_number in range(ROUNDS + 1):
            first = round_number % len(contenders)  # none always follows the same other one
            for name in (*contenders[first:], *contenders[:first]):
                contender = contender_processes[name]
                (seconds,) = await contender.call(publications, burst)
                if round_number:  # the first round warms up
                    figures[name].append(seconds * 1e6 / (publications * burst * count))
    return {name: statistics.median(values) for name, values in figures.items()}
