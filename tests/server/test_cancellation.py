"""Functions of the application end with their callers, or are left."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support.timing import SOON, TICK
from tocsin_server import cancellation
from tocsin_server.cancellation import CancelledByFunction, FunctionTasks, call_as_task, end, own


class Fault(Exception):
    """What a function of the application raises."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "CANCEL_SECONDS", TICK)


def unexpected(_: object) -> None:
    pytest.fail("the function was left")


async def ignores_cancellation(released: asyncio.Event) -> str:
    while not released.is_set():
        try:
            await released.wait()
        except asyncio.CancelledError:
            continue
    return "answer"


async def test_a_call_returns_the_result_of_a_function_that_waits_or_does_not() -> None:
    async def answers(*, waits: bool) -> str:
        if waits:
            await asyncio.sleep(0)
        return "answer"

    assert await call_as_task(answers(waits=False), "name", unexpected) == "answer"
    assert await call_as_task(answers(waits=True), "name", unexpected) == "answer"


@pytest.mark.parametrize("waits", [False, True])
async def test_what_a_function_raises_is_raised_and_makes_no_reference_cycle(*, waits: bool) -> None:
    async def raises() -> None:
        if waits:
            await asyncio.sleep(0)
        raise Fault

    gc.collect()
    gc.disable()
    try:
        try:
            await call_as_task(raises(), "name", unexpected)
        except Fault:
            caught = True
        assert caught
        assert not [one for one in gc.get_objects() if type(one) is Fault]
    finally:
        gc.enable()


async def test_a_function_whose_own_await_is_cancelled_does_not_cancel_its_caller() -> None:
    async def awaits_what_is_cancelled() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(CancelledByFunction):
        await call_as_task(awaits_what_is_cancelled(), "name", unexpected)


async def test_a_caller_that_is_cancelled_waits_until_the_function_has_cleaned_up() -> None:
    steps: list[str] = []

    async def cleans_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    caller = asyncio.create_task(call_as_task(cleans_up(), "name", unexpected))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert steps == ["cleaned up"]


async def test_a_function_that_ignores_its_cancellation_is_left() -> None:
    """It goes on, and the loop no longer knows it."""
    released = asyncio.Event()
    left: list[asyncio.Task[str]] = []
    caller = asyncio.create_task(call_as_task(ignores_cancellation(released), "name", left.append))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(caller, SOON)
    assert len(left) == 1
    assert left[0] not in asyncio.all_tasks()
    released.set()
    assert await left[0] == "answer"


async def test_a_second_cancellation_leaves_the_rest_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "CANCEL_SECONDS", 10 * SOON)
    released = asyncio.Event()
    left: list[asyncio.Task[str]] = []
    caller = asyncio.create_task(call_as_task(ignores_cancellation(released), "name", left.append))
    await asyncio.sleep(0)
    caller.cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not left
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(caller, SOON)
    assert len(left) == 1
    assert left[0] not in asyncio.all_tasks()
    released.set()
    await left[0]


async def leaves_its_task() -> None:
    task = asyncio.create_task(ignores_cancellation(asyncio.Event()))
    own(task)
    await asyncio.sleep(0)
    left: list[asyncio.Task[str]] = []
    await end([task], left.append)
    assert left == [task]


async def leaves_a_caller() -> None:
    function = ignores_cancellation(asyncio.Event())
    caller = asyncio.create_task(call_as_task(function, "name", lambda _: None))
    await asyncio.sleep(0)
    assert not caller.done()


@pytest.mark.parametrize("main", [leaves_its_task, leaves_a_caller])
def test_the_event_loop_ends_without_a_task_that_is_left(
    main: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """`asyncio.run` cancels the tasks that it knows, and waits for them without a limit."""
    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    thread.join(SOON)
    assert not thread.is_alive()


async def test_tasks_of_functions_end_with_their_context() -> None:
    """It waits for them. If it is cancelled, it leaves those that ignore this."""
    released, waiting = asyncio.Event(), asyncio.Event()
    left: list[str] = []
    answers: list[str] = []

    async def work() -> None:
        answers.append(await ignores_cancellation(released))

    async def run() -> None:
        async with FunctionTasks(lambda task: left.append(task.get_name())) as tasks:
            tasks.start(work(), "work")
            waiting.set()

    for is_cancelled in (True, False):
        waiting.clear()
        running = asyncio.create_task(run())
        await waiting.wait()
        if is_cancelled:
            running.cancel()
            await asyncio.wait([running])
            assert (left, answers) == (["work"], [])
        released.set()
        await asyncio.wait([running])
    await asyncio.sleep(0)
    assert (left, answers) == (["work"], ["answer"] * 2)
