"""Requests of a caller run in their order, so many at a time, and only so many wait."""

from __future__ import annotations

import asyncio

import pytest

from tocsin_server.api.callers import WAITING_FACTOR, Caller, LimitReached, Scope
from tocsin_server.config.options import ApiOptions
from tocsin_server.core.glob import Glob

RUNNING = 2


def caller() -> Caller:
    """A caller of whom two requests run at a time."""
    return Caller("a", ApiOptions(concurrent_requests=RUNNING))


async def entering(one: Caller, count: int) -> list[asyncio.Task[None]]:
    """So many requests that have asked to enter."""
    tasks = [asyncio.create_task(one.enter()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def done(tasks: list[asyncio.Task[None]]) -> list[bool]:
    """Which of the requests run."""
    return [task.done() for task in tasks]


async def test_requests_that_wait_run_in_their_order() -> None:
    one = caller()
    tasks = await entering(one, RUNNING + 2)
    assert done(tasks) == [True, True, False, False]
    one.leave()
    await tasks[2]
    assert done(tasks) == [True, True, True, False]
    assert one.running == RUNNING
    one.leave()
    await tasks[3]
    for _ in range(RUNNING):
        one.leave()
    assert one.running == 0


async def test_a_request_that_enters_at_once_passes_none_that_waits() -> None:
    one = caller()
    tasks = await entering(one, RUNNING + 1)
    one.leave()
    assert not one.enter_now()
    await tasks[-1]
    one.leave()
    assert one.enter_now()


async def test_a_request_that_is_given_up_leaves_its_place() -> None:
    """Whether it waits, or has just been given a place."""
    one = caller()
    tasks = await entering(one, RUNNING + 3)
    waiting = tasks[RUNNING:]
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    one.leave()  # gives the second that waited a place
    waiting[1].cancel()
    await asyncio.wait_for(waiting[2], 5)
    assert one.running == RUNNING
    one.leave()
    one.leave()
    assert one.running == 0


async def test_only_so_many_requests_wait() -> None:
    one = caller()
    most = RUNNING * WAITING_FACTOR
    tasks = await entering(one, RUNNING + most)
    with pytest.raises(LimitReached) as error:
        await one.enter()
    assert error.value.limit == "api.concurrent_requests"
    for _ in range(RUNNING + most):
        one.leave()
        await asyncio.sleep(0)
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert one.running == 0


@pytest.mark.parametrize(
    ("scope", "is_limited"),
    [
        (Scope(), False),
        (Scope(methods=frozenset({"publish"})), True),
        (Scope(channels=[Glob("news")]), True),
    ],
)
def test_a_scope_limits_methods_or_channels(scope: Scope, *, is_limited: bool) -> None:
    assert scope.is_limited == is_limited
