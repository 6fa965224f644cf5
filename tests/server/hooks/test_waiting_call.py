"""A call of a hook that waits is resumed as if it had been awaited, and cancelled once at its deadline."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from tocsin_server.hooks.waiting_call import WaitingCall, as_coroutine, resumed


async def begun(call: Any) -> Any:
    """Run the first step of a coroutine that waits, and then the rest."""
    return await resumed(call, call.send(None))


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_a_call_goes_on_with_what_it_waits_for() -> None:
    async def call() -> list[object]:
        return [await asyncio.sleep(0, "first"), await asyncio.sleep(0, "second")]

    assert await begun(call()) == ["first", "second"]


async def test_a_call_that_waits_again_when_it_is_cancelled_goes_on() -> None:
    async def call() -> object:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                this_task().uncancel()
        return await asyncio.sleep(0, "answer")

    task = asyncio.create_task(begun(call()))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    assert await task == "answer"


async def test_a_call_that_raises_raises() -> None:
    async def call() -> None:
        await asyncio.sleep(0)
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        await begun(call())


async def test_a_call_is_closed_with_what_awaits_it() -> None:
    ended: list[str] = []

    async def call() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("closed")

    waiting = begun(call())
    waiting.send(None)
    waiting.close()
    assert ended == ["closed"]


async def test_what_a_decorator_made_of_a_hook_is_awaited() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result("answer")
    assert await as_coroutine(future) == "answer"


async def test_only_the_cancellation_of_the_deadline_is_taken_back() -> None:
    async def cancelled(times: int) -> tuple[bool, int]:
        call = WaitingCall(this_task())
        for _ in range(times):
            this_task().cancel()
        call.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return call.end(), this_task().cancelling()
        raise AssertionError("it was not cancelled")

    assert await asyncio.create_task(cancelled(0)) == (True, 0)
    assert await asyncio.create_task(cancelled(1)) == (False, 1)


async def test_a_deadline_that_has_not_come_takes_nothing_back() -> None:
    async def ended_twice() -> tuple[bool, bool, int]:
        call = WaitingCall(this_task())
        this_task().cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return call.end(), call.end(), this_task().cancelling()

    assert await asyncio.create_task(ended_twice()) == (False, False, 1)
