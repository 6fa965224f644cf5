"""CPU per delivery, of contenders that take turns."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

from tests.bench.servers import Contender, Deliver

TURNS = 9
REST_SECONDS = 0.02
"""Between turns, so that the readers' process catches up and nobody's buffers grow."""


async def cpu_per_delivery(
    contenders: Mapping[str, Contender], count: int, publications: int, burst: int = 1
) -> dict[str, float]:
    """Median microseconds of this process's CPU (user and kernel) per publication and subscriber."""
    async with AsyncExitStack() as stack:
        delivers = {
            name: await stack.enter_async_context(contender(count)) for name, contender in contenders.items()
        }
        figures: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(TURNS + 1):
            for name, deliver in delivers.items():
                figure = await _turn(deliver, publications, burst) / (publications * burst * count)
                if turn:  # the first one warms up
                    figures[name].append(figure * 1e6)
    return {name: statistics.median(values) for name, values in figures.items()}


async def cpu_one_by_one(contenders: Mapping[str, Contender], count: int) -> dict[str, float]:
    """The same for so many subscribers that the open files do not suffice for all contenders at once."""
    return {
        name: (await cpu_per_delivery({name: contender}, count, publications=1))[name]
        for name, contender in contenders.items()
    }


async def _turn(deliver: Deliver, publications: int, burst: int) -> float:
    spent = 0.0
    for _ in range(publications):
        await asyncio.sleep(REST_SECONDS)
        started = time.process_time()
        await deliver(burst)
        spent += time.process_time() - started
    return spent
