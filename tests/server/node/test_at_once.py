"""Coroutines that are run at once as far as they go, and end in a task if they wait."""

from __future__ import annotations

import asyncio

import pytest

from tocsin_server.node.at_once import run_at_once


async def test_a_coroutine_that_does_not_wait_has_ended() -> None:
    done = []

    async def work() -> None:
        done.append(1)

    assert run_at_once(work()) is None
    assert done == [1]


async def test_what_is_left_of_a_coroutine_that_waits_is_run_by_a_task() -> None:
    """Several waits, of which the first may be over before the task begins."""
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    second: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    results = []

    async def work() -> None:
        results.append(await first)
        await asyncio.sleep(0)
        results.append(await second)

    rest = run_at_once(work())
    assert rest is not None
    first.set_result("first")
    task = asyncio.create_task(rest)
    for _ in range(3):  # turns of the loop: the task begins, is woken, and waits for the second
        await asyncio.sleep(0)
    assert results == ["first"]
    second.set_result("second")
    await task
    assert results == ["first", "second"]


async def test_an_exception_is_passed_on_at_once_and_from_the_task() -> None:
    async def fails(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        run_at_once(fails(0))
    rest = run_at_once(fails(1))
    assert rest is not None
    with pytest.raises(ValueError, match="failed"):
        await asyncio.create_task(rest)


async def test_the_coroutine_is_cancelled_with_its_task() -> None:
    cleaned = []

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleaned.append(1)

    rest = run_at_once(work())
    assert rest is not None
    task = asyncio.create_task(rest)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [1]
