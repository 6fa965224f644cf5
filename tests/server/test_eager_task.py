"""An eager task behaves as any other task, but for its first step, which runs in the call that starts it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from tests.support.timing import TICK
from tocsin_server.eager_task import start_eagerly

Steps = list[object]
Work = Callable[[Steps], Coroutine[Any, Any, object]]

variable = contextvars.ContextVar("variable", default="unset")


def note_task(steps: Steps) -> asyncio.Task[Any]:
    """Note what asyncio says about the task that runs."""
    task = asyncio.current_task()
    assert task is not None
    steps.append((type(task).__name__, task in asyncio.all_tasks(), task.cancelling(), task.done()))
    return task


# ------------------------------------------------------------------- what each coroutine does in its own task


async def returns(steps: Steps) -> object:
    note_task(steps)
    return "result"


async def raises(steps: Steps) -> object:
    raise ValueError("raised")


async def sleeps(steps: Steps) -> object:
    first = note_task(steps)
    await asyncio.sleep(0)
    return note_task(steps) is first


async def awaits_a_future(steps: Steps) -> object:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, "woken")
    return await future


async def awaits_a_failing_future(steps: Steps) -> object:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_exception, ValueError("failed"))
    return await future


async def times_out(steps: Steps) -> object:
    try:
        async with asyncio.timeout(TICK / 10):
            await asyncio.Event().wait()
    except TimeoutError:
        steps.append("timed out")
    return note_task(steps).cancelling()


async def times_out_at_once(steps: Steps) -> object:
    async with asyncio.timeout(0):
        await asyncio.Event().wait()
    return "not reached"


async def has_a_group_whose_task_fails(steps: Steps) -> object:
    async def fail() -> None:
        raise ValueError("in the group")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.Event().wait()
    except* ValueError as errors:
        steps.append([str(error) for error in errors.exceptions])
    return note_task(steps).cancelling()


async def cancels_itself_and_returns(steps: Steps) -> object:
    note_task(steps).cancel()
    return note_task(steps).cancelling()


async def cancels_itself_and_waits(steps: Steps) -> object:
    note_task(steps).cancel("by itself")
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError as error:
        steps.append(str(error))
        raise
    return "not reached"


async def takes_its_cancellation_back(steps: Steps) -> object:
    task = note_task(steps)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    return task.uncancel(), await asyncio.sleep(0, "goes on")


async def uses_nested_scopes_of_anyio(steps: Steps) -> object:
    with anyio.move_on_after(60) as outer, anyio.move_on_after(TICK / 10) as inner:
        await anyio.sleep(60)
    steps.append((outer.cancelled_caught, inner.cancelled_caught))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anyio.lowlevel.checkpoint()
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 60)
        group.cancel_scope.cancel()
    return scope.cancelled_caught, anyio.get_current_task().has_pending_cancellation()


async def sets_a_variable(steps: Steps) -> object:
    token = variable.set("of the task")
    await asyncio.sleep(0)
    steps.append(variable.get())
    variable.reset(token)
    return variable.get()


@types.coroutine
def generator_of_bare_yields() -> Generator[None, None, str]:
    yield
    yield
    return "after two turns"


async def awaits_a_generator(steps: Steps) -> object:
    return await generator_of_bare_yields()


@types.coroutine
def yields(value: object) -> Generator[object, None, None]:
    yield value


async def yields_no_future(steps: Steps) -> object:
    await yields(42)
    return "not reached"


async def awaits_a_future_of_another_loop(steps: Steps) -> object:
    loop = asyncio.new_event_loop()
    try:
        return await loop.create_future()
    finally:
        loop.close()


async def awaits_itself(steps: Steps) -> object:
    return await note_task(steps)


async def gathers(steps: Steps) -> object:
    return await asyncio.gather(asyncio.sleep(0, 1), awaits_a_generator(steps))


async def shields(steps: Steps) -> object:
    return await asyncio.shield(asyncio.ensure_future(asyncio.sleep(0, "shielded")))


async def closes_a_generator(steps: Steps) -> object:
    async def numbers() -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            steps.append("closed")

    async with contextlib.aclosing(numbers()) as opened:
        async for number in opened:
            steps.append(number)
    return None


WORKS: list[Work] = [
    returns,
    raises,
    sleeps,
    awaits_a_future,
    awaits_a_failing_future,
    times_out,
    times_out_at_once,
    has_a_group_whose_task_fails,
    cancels_itself_and_returns,
    cancels_itself_and_waits,
    takes_its_cancellation_back,
    uses_nested_scopes_of_anyio,
    sets_a_variable,
    awaits_a_generator,
    yields_no_future,
    awaits_a_future_of_another_loop,
    awaits_itself,
    gathers,
    shields,
    closes_a_generator,
]


async def end_of(task: asyncio.Task[object], steps: Steps) -> list[object]:
    """How a task ended, and what its coroutine noted."""
    await asyncio.wait([task])
    if task.cancelled():
        return [*steps, "cancelled", task.cancelling()]
    error = task.exception()
    how = task.result() if error is None else (type(error).__name__, str(error)[:20])
    return [*steps, how, task.cancelling()]


def in_a_plain_task(work: Work, steps: Steps) -> Awaitable[list[object]]:
    return end_of(asyncio.create_task(work(steps)), steps)


def in_an_eager_task(work: Work, steps: Steps) -> Awaitable[list[object]]:
    return end_of(start_eagerly(work(steps), asyncio.get_running_loop()), steps)


async def from_a_callback(work: Work, steps: Steps) -> list[object]:
    """Start an eager task where no task is current, as in a callback of a transport."""
    loop, started = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    loop.call_soon(lambda: started.set_result(start_eagerly(work(steps), loop)))
    return await end_of(await started, steps)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
async def test_a_coroutine_does_the_same_in_an_eager_task_as_in_a_plain_one(work: Work) -> None:
    plain = await in_a_plain_task(work, [])
    task = asyncio.current_task()
    assert await in_an_eager_task(work, []) == plain
    assert await from_a_callback(work, []) == plain
    assert asyncio.current_task() is task


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.__name__)
async def test_a_task_that_is_cancelled_from_outside_ends_as_a_plain_one(work: Work, turns: int) -> None:
    """A plain task is as far one turn later, so it is cancelled one turn later."""
    ends = []
    for start, later in ((in_a_plain_task, 1), (in_an_eager_task, 0)):
        before = asyncio.all_tasks()
        steps: Steps = []
        waiting = asyncio.ensure_future(start(work, steps))
        for _ in range(turns + later):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - before - {waiting}:
            if task.get_coro().__name__ == work.__name__:  # type: ignore[union-attr]
                task.cancel("from outside")
        ends.append(await waiting)
    assert ends[0] == ends[1]


async def test_the_first_step_runs_in_the_call_and_no_other_callback_does() -> None:
    steps: Steps = []
    loop = asyncio.get_running_loop()
    loop.call_soon(steps.append, "the next turn")
    task = start_eagerly(returns(steps), loop)
    assert (task.done(), task.result(), len(steps)) == (True, "result", 1)
    await asyncio.sleep(0)
    assert steps[1:] == ["the next turn"]


async def test_what_a_task_sets_does_not_reach_its_starter() -> None:
    start_eagerly(sets_a_variable([]), asyncio.get_running_loop())
    assert variable.get() == "unset"


async def test_a_task_started_inside_another_one_sees_itself_and_then_the_other_goes_on() -> None:
    loop = asyncio.get_running_loop()

    async def outer() -> tuple[bool, bool]:
        own = asyncio.current_task()
        inner = start_eagerly(sleeps([]), loop)
        is_own = asyncio.current_task() is own
        return is_own, bool(await inner)

    assert await start_eagerly(outer(), loop) == (True, True)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_what_ends_the_program_is_raised_in_the_call(kind: type[BaseException]) -> None:
    async def interrupt() -> None:
        raise kind

    own, loop = asyncio.current_task(), asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _fault: None)  # the exception of the task is not retrieved
    with pytest.raises(kind):
        start_eagerly(interrupt(), loop)
    assert asyncio.current_task() is own
    gc.collect()


async def test_an_exception_that_is_never_retrieved_is_reported() -> None:
    faults: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, fault: faults.append(fault["message"]))
    start_eagerly(raises([]), loop)
    gc.collect()
    assert faults == ["Task exception was never retrieved"]


async def test_a_task_leaves_no_reference_cycle() -> None:
    gc.collect()
    gc.disable()
    try:
        task = start_eagerly(returns([]), asyncio.get_running_loop())
        freed = weakref.ref(task)
        del task
        assert freed() is None
    finally:
        gc.enable()


async def test_a_loop_whose_method_was_replaced_starts_the_task_in_its_next_turn() -> None:
    """Before Python 3.12 this method is replaced for a moment. From then on, no other does anything."""
    loop = asyncio.get_running_loop()
    replaced = loop.call_soon
    loop.call_soon = replaced  # type: ignore[method-assign]
    try:
        assert await start_eagerly(returns([]), loop) == "result"
        assert vars(loop)["call_soon"] is replaced
    finally:
        del loop.call_soon
