"""Runs a coroutine at once, as far as it goes without waiting. Only what is left of it needs a task.

Python 3.12 has eager tasks, which do the same. The first part runs in the caller's task, or in none. So a
coroutine that is run this way must not use its task before it waits, as `asyncio.timeout` does.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any


def run_at_once(work: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run a coroutine until it ends or waits. Return what is left of it, for a task; None: it has ended."""
    try:
        awaited = work.send(None)
    except StopIteration:
        return None
    return _rest(work, awaited)


async def _rest(work: Coroutine[Any, Any, None], awaited: object) -> None:
    await _steps(work, awaited)


@coroutine
def _steps(work: Coroutine[Any, Any, None], awaited: object) -> Generator[Any, Any, None]:
    """Yield what the coroutine waits for, as its task would have been told."""
    while True:
        try:
            result = yield awaited
        except BaseException as error:  # noqa: BLE001 - such as the cancellation of the task; it is passed on
            thrown: BaseException | None = error
        else:
            thrown = None
        try:
            awaited = work.send(result) if thrown is None else work.throw(thrown)
        except StopIteration:
            return
