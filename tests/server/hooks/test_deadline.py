"""One timer serves the deadlines of all calls of a hook, and cancels only those that are due."""

from __future__ import annotations

import asyncio

from tests.support.timing import TICK
from tocsin_server.hooks.deadline import DeadlinePassed, Deadlines


async def call(deadlines: Deadlines, answered: asyncio.Event) -> str:
    """Wait for an answer, as a call of a hook does. Returns how it ended."""
    task = asyncio.current_task()
    assert task is not None
    deadlines.begin(task)
    try:
        await answered.wait()
    except asyncio.CancelledError:
        if deadlines.take(task):
            return DeadlinePassed.__name__
        raise
    finally:
        deadlines.end(task)
    return "answered"


async def test_each_call_is_cancelled_that_has_no_answer_in_time() -> None:
    deadlines, answered, never = Deadlines(TICK), asyncio.Event(), asyncio.Event()
    answered.set()
    first = asyncio.create_task(call(deadlines, never))
    await asyncio.sleep(TICK / 2)  # so that the second is due when the timer has been set again
    later = [asyncio.create_task(call(deadlines, event)) for event in (never, answered, never)]
    assert await asyncio.gather(first, *later) == [
        "DeadlinePassed",
        "DeadlinePassed",
        "answered",
        "DeadlinePassed",
    ]


async def test_a_call_that_is_cancelled_besides_ends_as_cancelled() -> None:
    deadlines, never = Deadlines(TICK), asyncio.Event()

    async def cancelled_twice() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return await call(deadlines, never)

    assert (await asyncio.gather(cancelled_twice(), return_exceptions=True))[0].__class__ is (
        asyncio.CancelledError
    )


async def test_a_call_that_goes_on_although_it_is_cancelled_leaves_no_cancellation_behind() -> None:
    deadlines, is_cancelled = Deadlines(TICK), asyncio.Event()

    async def stubborn() -> int:
        task = asyncio.current_task()
        assert task is not None
        deadlines.begin(task)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            is_cancelled.set()
        deadlines.end(task)
        return task.cancelling()

    assert await asyncio.create_task(stubborn()) == 0
    assert is_cancelled.is_set()


async def test_no_task_is_cancelled_once_the_deadlines_are_closed() -> None:
    deadlines, never = Deadlines(TICK), asyncio.Event()
    waiting = asyncio.create_task(call(deadlines, never))
    await asyncio.sleep(0)
    deadlines.close()
    await asyncio.sleep(2 * TICK)
    assert not waiting.done()
    never.set()
    assert await waiting == "answered"
