"""The tests' own time limits, and the order in which tests start."""

import asyncio
from pathlib import Path

import pytest

from tests.support.timing import LONG_TESTS, TICK, progress_timeout

TOP = Path(__file__).parents[1]


@pytest.mark.parametrize("path", LONG_TESTS)
def test_a_long_test_that_starts_first_exists(path: str) -> None:
    assert (TOP / path).exists()


async def test_work_that_advances_may_take_longer_than_the_limit() -> None:
    steps: list[int] = []
    async with progress_timeout(lambda: len(steps), seconds=5 * TICK):
        for step in range(8):
            await asyncio.sleep(TICK)
            steps.append(step)


async def test_work_that_stands_still_is_interrupted() -> None:
    with pytest.raises(TimeoutError):
        async with progress_timeout(lambda: 0, seconds=2 * TICK):
            await asyncio.Event().wait()
