r"""A call of a hook that waits for something, and what is left of its coroutine.

    call --answers at once--> answered
        \--waits--> resumed, until it answers or its deadline has come: cancelled

Most hooks look something up that is there, and never wait. They need no deadline.

The mutable state is whether the deadline of a call has come. Only the methods of `WaitingCall` change it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Task: TypeAlias = "asyncio.Task[Any]"


class DeadlinePassed(Exception):
    """A hook did not answer in time."""


class WaitingCall:
    """A call that waits, in its task."""

    __slots__ = ("_is_overdue", "_task")

    def __init__(self, task: Task) -> None:
        self._task = task
        self._is_overdue = False

    def cancel(self) -> None:
        """Cancel the task, because the deadline has come."""
        self._is_overdue = True
        self._task.cancel()

    def end(self) -> bool:
        """Take the cancellation back, once; True if there was no other, so that the task goes on.

        So a hook that went on although it was cancelled leaves no cancellation behind.
        """
        if not self._is_overdue:
            return False
        self._is_overdue = False
        return self._task.uncancel() == 0


async def as_coroutine(awaitable: Awaitable[T]) -> T:
    """Return what an awaitable returns: a decorator may have made another one of a hook."""
    return await awaitable


@types.coroutine
def resumed(call: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Await what is left of a coroutine whose first step waits for `waits_for`; return its result."""
    while True:
        try:
            yield waits_for
        except GeneratorExit:
            call.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised in the coroutine
            try:
                waits_for = call.throw(error)
            except StopIteration as answered:
                return answered.value
        else:
            return (yield from call)
