r"""Requests of clients that an authorizer decides about: at once, in a task that waits, or in a later turn.

    Session --decide_now--> decided, in the step of the session
                       \--the authorizer waits, or the turn is used up--> Authorize --> Authorized

What the authorizer decides at once costs neither a turn of the event loop nor an event of the session. Once
that has taken `TURN_SECONDS`, the next requests are queued for the next turn, after other input.

A `TaskGroup` starts each task in a further turn, and is told of its end in another one. Here a task begins at
once, and removes itself.

The mutable state is the requests that are queued, the time that was used, and the tasks. Only the methods of
`Authorizations` change it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import NoReturn, Self, TypeAlias

from tocsin_server import cancellation, errors
from tocsin_server.core.events import Authorize, Authorized, AuthorizedOutcome, Received, Turn
from tocsin_server.eager_task import start_eagerly
from tocsin_server.node.authorizer import Authorizer
from tocsin_server.node.connection import Connection
from tocsin_server.node.current_step import CurrentStep
from tocsin_server.node.sampled_log import SampledLog
from tocsin_server.protocol.messages import ConnectRequest

TURN_SECONDS = 0.002
"""As long as waiting commands have. A hook that answers at once takes some 10 µs."""

FIRST_STEPS = (Received, Turn, Authorized)
"""Events that nothing else follows in the same callback, which could rely on the state that they leave."""

Key: TypeAlias = tuple[Connection, int]


class Authorizations:
    """Asks an authorizer. `answer` is called with each decision that was not returned at once.

    At the end of its context it waits for those that were asked about, and cancels them if that is cancelled.
    What ignores this is left (cancellation.py).
    """

    def __init__(
        self,
        answer: Callable[[Connection, Authorized], None],
        log: SampledLog,
        step: CurrentStep,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.authorizer: Authorizer | None = None
        self._answer = answer
        self._sampled_log = log
        self._step = step
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: deque[tuple[Connection, Authorize, Context]] = deque()
        self._tasks: dict[Key, asyncio.Task[AuthorizedOutcome]] = {}
        self._used_seconds = 0.0
        """By decisions since the last turn for the queue began."""
        self._is_scheduled = False

    def __len__(self) -> int:
        """Return how many requests are queued, or wait for an answer."""
        return len(self._queue) + len(self._tasks)

    def decide_in_step(self, authorize: Authorize) -> AuthorizedOutcome | None:
        """Return the decision about a request of the connection whose event is being handled.

        None: `add` must follow. Code of the application runs meanwhile, so this must be no step of several.
        """
        step = self._step
        connection, event = step.connection, step.event
        if connection is None or step.deciding is not None or type(event) not in FIRST_STEPS:
            return None
        step.connection, step.deciding = None, connection
        try:
            return self.decide_now(connection, authorize)
        finally:
            step.connection, step.event, step.deciding = connection, event, None

    def decide_now(self, connection: Connection, authorize: Authorize) -> AuthorizedOutcome | None:
        """Return the decision about a request. None: `add` must follow.

        Code of the application runs in this call, and may call the node.
        """
        if self._queue or self._loop is None:
            return None
        if self._used_seconds >= TURN_SECONDS:
            self._schedule(self._loop)
            return None
        began_at = self._clock()
        outcome = self._start(connection, authorize, self._loop)
        self._used_seconds += self._clock() - began_at
        return outcome

    def add(self, connection: Connection, authorize: Authorize) -> None:
        """Have a request decided: its answer follows later. It may be asked about already."""
        if self._loop is not None and (connection, authorize.id) not in self._tasks:
            self._queue.append((connection, authorize, copy_context()))
            self._schedule(self._loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._run_turn, loop)

    def _run_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask about what is queued, in its order, until the time of this turn is used up."""
        self._is_scheduled = False
        began_at, self._used_seconds = self._clock(), 0.0
        while self._queue and self._clock() - began_at < TURN_SECONDS:
            connection, authorize, context = self._queue.popleft()
            if not connection.session.is_closed:
                context.run(self._decide, connection, authorize, loop)
        if self._queue:
            self._schedule(loop)

    def _decide(self, connection: Connection, authorize: Authorize, loop: asyncio.AbstractEventLoop) -> None:
        outcome = self._start(connection, authorize, loop)
        if outcome is not None:
            self._answer(connection, Authorized(authorize.id, outcome))

    def _start(
        self, connection: Connection, authorize: Authorize, loop: asyncio.AbstractEventLoop
    ) -> AuthorizedOutcome | None:
        """Ask about a request. None: the answer follows later."""
        try:
            task = start_eagerly(self._ask(connection, authorize), loop)
        except (KeyboardInterrupt, SystemExit) as error:  # it ends the loop, as from any other task
            loop.call_soon(_raise, error)
            return _fault(authorize)
        if task.done():
            has_failed = task.cancelled() or task.exception() is not None
            return _fault(authorize) if has_failed else task.result()
        cancellation.own(task)
        self._tasks[connection, authorize.id] = task
        return None

    async def _ask(self, connection: Connection, authorize: Authorize) -> AuthorizedOutcome:
        outcome = None
        try:
            if self.authorizer is not None:
                outcome = await self.authorizer.authorize(authorize, connection.request)
        except TimeoutError:  # the session may have refused the request already, at its own deadline
            client = connection.session.client
            self._sampled_log.write("authorization_timed_out", level="warning", client=client)
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001 - logged as an error
            client = connection.session.client
            self._sampled_log.fault("authorization_raised", client=client)
        finally:
            has_waited = self._tasks and self._tasks.pop((connection, authorize.id), None) is not None
        if outcome is None:
            outcome = _fault(authorize)
        if has_waited:
            self._answer(connection, Authorized(authorize.id, outcome))
        return outcome

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._queue.clear()
        try:
            if kind is None:
                await self._wait()
        finally:
            try:
                await cancellation.end(self._waiting)
            finally:
                self._tasks.clear()
                self._loop = None

    @property
    def _waiting(self) -> list[asyncio.Task[AuthorizedOutcome]]:
        # One that was cancelled before its first step has not removed itself
        return [task for task in self._tasks.values() if not task.done()]

    async def _wait(self) -> None:
        while waiting := self._waiting:
            await asyncio.wait(waiting)


def _fault(authorize: Authorize) -> AuthorizedOutcome:
    """What becomes of a request that the authorizer did not decide about."""
    return errors.SERVER_ERROR if isinstance(authorize.request, ConnectRequest) else errors.INTERNAL_ERROR


def _raise(error: BaseException) -> NoReturn:
    raise error
