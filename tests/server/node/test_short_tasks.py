"""Short tasks remove themselves, and their owner waits for those that are left, or cancels them."""

from __future__ import annotations

import asyncio

import pytest

from tocsin_server.node.short_tasks import ShortTasks


class Work:
    """Work that ends when it may, and notes how it ended."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.ended = ""

    async def __call__(self) -> None:
        try:
            await self.may_end.wait()
            self.ended = "done"
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise


async def test_work_that_does_not_wait_has_removed_itself_after_one_turn_of_the_loop() -> None:
    async with ShortTasks() as tasks:
        work = Work()
        work.may_end.set()
        tasks.start(work())
        assert (len(tasks), work.ended) == (1, "")
        await asyncio.sleep(0)
        assert (len(tasks), work.ended) == (0, "done")


async def test_the_end_of_the_context_waits_for_all_tasks() -> None:
    works = [Work() for _ in range(3)]
    async with ShortTasks() as tasks:
        for work in works:
            tasks.start(work())
            asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, work.may_end.set)
    assert [work.ended for work in works] == ["done"] * 3


@pytest.mark.parametrize("has_begun", [True, False])
async def test_tasks_are_cancelled_if_the_end_of_the_context_is(has_begun: bool) -> None:
    work, tasks = Work(), ShortTasks()

    async def own() -> None:
        async with tasks:
            if has_begun:
                tasks.start(work())
                await asyncio.sleep(0)
            else:
                asyncio.get_running_loop().call_soon(tasks.start, work())

    owner = asyncio.create_task(own())
    if has_begun:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(owner.cancel)
    await asyncio.wait([owner])
    assert len(tasks) == 0
    assert work.ended == ("cancelled" if has_begun else "")


async def test_tasks_are_cancelled_if_the_context_ends_with_an_exception() -> None:
    work, tasks = Work(), ShortTasks()

    async def fail() -> None:
        async with tasks:
            tasks.start(work())
            await asyncio.sleep(0)
            raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        await fail()
    assert (len(tasks), work.ended) == (0, "cancelled")


async def test_outside_the_context_nothing_is_run() -> None:
    tasks, work = ShortTasks(), Work()
    tasks.start(work())
    async with tasks:
        pass
    tasks.start(work())
    assert (len(tasks), work.ended) == (0, "")
