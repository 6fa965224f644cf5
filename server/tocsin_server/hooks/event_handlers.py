"""Handlers: functions of the embedding application that receive lifecycle events.

    @app.hooks.events("connected", "disconnected")
    async def attendance(events: Sequence[LifecycleEvent]) -> None: ...

A handler is called with a batch: events of one part of the event log, in their order. When it returns, they
are acknowledged. If it raises, or takes too long, it gets them again, by the rules of webhooks. A plain
function runs in a thread. One that hangs keeps its thread. An async function that hangs is cancelled, and
left if it ignores this. While THREADS calls of a handler hang, it is not called again.

The mutable state is the threads of each handler, and which of its calls were left.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import structlog

from tocsin_server.cancellation import call_as_task, is_cancelled
from tocsin_server.config.event_options import EventType
from tocsin_server.config.webhook_options import DEFAULT_RETRY_SECONDS
from tocsin_server.core.delivery import Outcome, Result
from tocsin_server.core.lifecycle import LifecycleEvent
from tocsin_server.engine.deliveries import DeadLetterLimits
from tocsin_server.hooks.event_filter import EventFilter
from tocsin_server.hooks.subscriber import DeliveryOptions, Subscriber
from tocsin_server.hooks.threads import Threads, is_async
from tocsin_server.hooks.waiting_call import as_coroutine

THREADS = 8
"""How many calls of one plain function may run at once, those that hang included.

While as many calls of an async function ignore that they are cancelled, no further one is made.
"""

HANDLER_SECONDS = 30.0
"""How long a call may take unless the application says."""

BATCH_SIZE = 100

DEAD_LETTERS = DeadLetterLimits(10_000, 2_592_000.0)

HANGING = Outcome(Result.UNREACHABLE, "earlier calls have not returned")

EventHandler = Callable[[Sequence[LifecycleEvent]], "Awaitable[None] | None"]
"""Takes a batch of events. It may raise any exception."""

F = TypeVar("F", bound=EventHandler)

_NAME = re.compile(r"[-a-zA-Z0-9_]{1,64}")

log = structlog.get_logger()


class EventHandlers:
    """The decorator of handlers. It is used before the node runs.

    `add` adds a subscriber to the deliveries of the node, whose `[events]` record the `recorded` types.
    """

    def __init__(self, add: Callable[[Subscriber], None], recorded: Collection[str]) -> None:
        self._add = add
        self._recorded = recorded

    def __call__(
        self,
        *types: EventType,
        channels: Sequence[str] = (),
        name: str = "",
        seconds: float = HANDLER_SECONDS,
        batch_size: int = BATCH_SIZE,
    ) -> Callable[[F], F]:
        """Call a function with the events of these types, or all, and of these channels (globs), or all.

        `name` identifies it on all nodes and after restarts; by default it is the name of the function. A
        call may take `seconds`, and has at most `batch_size` events. Raises ValueError for a type that is not
        recorded, and for a name that another handler has.
        """
        if not self._recorded:
            raise ValueError("events.types is empty, so that no lifecycle event is recorded")
        for kind in types:
            if kind not in (*self._recorded, "state_lost"):
                raise ValueError(f"events.types has not {kind!r}, so that it is not recorded")

        def register(function: F) -> F:
            self._add(
                HandlerSubscriber(
                    function, types, channels=channels, name=name, seconds=seconds, batch_size=batch_size
                )
            )
            return function

        return register


class HandlerSubscriber:
    """Implements Subscriber for a function of the application.

    `types` and `channels` (globs) are those of the wanted events; empty means all. `seconds` is how long a
    call may take.
    """

    def __init__(
        self,
        function: EventHandler,
        types: Sequence[EventType] = (),
        *,
        channels: Sequence[str] = (),
        name: str = "",
        seconds: float = HANDLER_SECONDS,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        name = name or getattr(function, "__name__", "")
        if not _NAME.fullmatch(name):
            raise ValueError(f"the handler {function!r} needs a name of letters, digits, - or _")
        self.name = f"handlers.{name}"
        self.options = DeliveryOptions(batch_size, 0.0, DEFAULT_RETRY_SECONDS, DEAD_LETTERS)
        self._function = function
        self._is_async = is_async(function)
        self.wants = EventFilter(types, channels).matches
        self._seconds = seconds
        self._threads = Threads(THREADS)
        self._left: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Have threads for a plain function."""
        self._threads = Threads(THREADS)
        try:
            yield
        finally:
            self._threads.close()

    async def deliver(self, delivery: str, events: Sequence[LifecycleEvent]) -> Outcome:
        """Call the function, and wait until it returns."""
        if not await self._may_call():
            return HANGING
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                await self._call(events)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            if isinstance(error, TimeoutError) and limit.expired():
                return Outcome(Result.UNREACHABLE, f"the call did not return within {self._seconds:g} s")
            log.exception("event_handler_raised", subscriber=self.name, delivery=delivery)
            return Outcome(Result.FAILED, "the function raised")
        return Outcome(Result.DELIVERED)

    async def _may_call(self) -> bool:
        """Wait for a thread, as long as a call may take. There may be more parts than threads."""
        if self._is_async:
            return len(self._left) < THREADS
        try:
            async with asyncio.timeout(self._seconds):
                await self._threads.reserve()
        except TimeoutError:
            return False
        return True

    async def _call(self, events: Sequence[LifecycleEvent]) -> None:
        function: Callable[[Sequence[LifecycleEvent]], Any] = self._function
        if self._is_async:
            await call_as_task(as_coroutine(function(events)), self.name, self._on_left)
        else:
            await self._threads.run_reserved(function, events)

    def _on_left(self, task: asyncio.Task[None]) -> None:
        """Count a call that goes on although it was cancelled, until it ends."""
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        log.warning("event_handler_ignores_cancellation", subscriber=self.name)
