"""Runs a session in asyncio: it hands events in, carries effects out, and owns the timer and every task."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import count
from typing import Any

from . import models
from .binding import LoopBinding
from .callbacks import TokenProvider, fetch_token
from .errors import TocsinError, Unauthorized
from .protocol.messages import Request
from .session import effects, events
from .session.session import Session
from .transports.websocket import CLOSE_SECONDS, WebSocketTransport

STOP_SECONDS = CLOSE_SECONDS + 1.0
CANCEL_SECONDS = 1.0

logger = logging.getLogger("tocsin")


class Driver:
    """Runs one session, in the event loop that creates it. ``feed`` and everything it calls never await.

    ``on_event`` is called with each event for the caller and its share of the bytes received, ``on_end`` once
    at the end. ``providers`` maps a channel, or None for the connection, to its token provider.

    The mutable state is the queue of events, the timer, the transport, the calls in flight and the tasks;
    only this class changes it. ``may_open`` is cleared by the client while its callbacks are too far behind:
    no transport is opened then.
    """

    def __init__(
        self,
        session: Session,
        open_transport: Callable[[Callable[[events.SessionEvent], None]], WebSocketTransport],
        providers: dict[str | None, TokenProvider | None],
        on_event: Callable[[models.Event, int], None],
        on_end: Callable[[TocsinError | None], None],
    ) -> None:
        self.may_open = asyncio.Event()
        self.may_open.set()
        self._session = session
        self._open_transport = open_transport
        self._providers = providers
        self._on_event = on_event
        self._on_end = on_end
        self.binding = LoopBinding("client")
        self._loop = self.binding.loop
        self._events: deque[events.SessionEvent] = deque()
        self._is_feeding = False
        self._transport: WebSocketTransport | None = None
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # uvloop's handle of a timer that is due at once has no time
        self._keys = count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._token_tasks: set[asyncio.Task[None]] = set()

    # --- events in, effects out

    def feed(self, event: events.SessionEvent) -> None:
        """Hand an event to the session. During another ``feed`` it is queued, and handled afterwards."""
        self._events.append(event)
        if self._is_feeding:
            return
        self._is_feeding = True
        try:
            while self._events:
                self._handle(self._events.popleft())
        finally:
            self._is_feeding = False
        self._set_timer()

    def call_from_any_thread(self, step: Callable[[], None]) -> None:
        """Call a function in the next turn of the loop. Does nothing in a closed loop, or in a fork."""
        if not self.binding.is_forked:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(step)

    async def call(self, method: str, request: Request) -> Any:
        """Send a command and wait for its result. Cancelling drops the result, not the command."""
        key = next(self._keys)
        future = self._calls[key] = self._loop.create_future()
        try:
            self.feed(events.IssueCommand(key, method, request))
            return await future
        finally:
            del self._calls[key]

    def _handle(self, event: events.SessionEvent) -> None:
        turn = self._session.handle(event, self._loop.time())
        size = len(event.frame) if isinstance(event, events.Received) else 0
        share = size // max(1, sum(isinstance(effect, effects.Notify) for effect in turn))
        for effect in turn:
            self._carry_out(effect, share)

    def _carry_out(self, effect: effects.Effect, size: int) -> None:
        match effect:
            case effects.Notify(event):
                self._on_event(event, size)
            case effects.Send(text) if self._transport is not None:
                self._transport.send(text)
            case effects.CommandFinished(key, result, error):
                self._finish_call(key, result, error)
            case effects.OpenTransport():
                self._transport = self._open_transport(self.feed)
                self.spawn(self._run_transport(self._transport))
            case effects.CloseTransport() if self._transport is not None:
                self._transport.close()
                self._transport = None
            case effects.FetchToken(channel):
                self._token_tasks.add(self.spawn(self._fetch_token(channel)))
            case effects.SessionEnded(error):
                self._end(error)

    def _finish_call(self, key: int, result: Any, error: TocsinError | None) -> None:
        future = self._calls.get(key)
        if future is None or future.done():
            return  # its caller was cancelled
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _end(self, error: TocsinError | None) -> None:
        self.may_open.set()
        for task in self._token_tasks:
            task.cancel()
        self._on_end(error)

    def _set_timer(self) -> None:
        """Set the timer for the deadline. An early timer is kept: firing it costs less than moving it."""
        deadline = self._session.deadline
        if self._timer is not None and (deadline is None or self._timer_at > deadline):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and deadline is not None:
            self._timer_at = deadline
            self._timer = self._loop.call_at(deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.feed(events.Timeout())

    # --- tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task, at the latest until ``stop``."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    async def stop(self) -> None:
        """End the session and wait for every task, 7 s at most.

        Called by one of the tasks, it does not wait. In a forked process it does nothing, since the
        connection belongs to the parent. Raises ``WrongUse`` in another event loop, unless its own is closed.
        """
        if self.binding.is_forked or self._loop.is_closed():
            return
        self.binding.require()
        self.feed(events.Stop())
        tasks = set(self._tasks)
        if not tasks or asyncio.current_task() in tasks:
            return
        try:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        """A task that failed ends the session with an error; otherwise it would look like a quiet channel."""
        self._tasks.discard(task)
        self._token_tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("client_task_failed", exc_info=error)
            self.feed(events.TransportRefused(TocsinError(f"internal error in the client: {error!r}")))

    async def _run_transport(self, transport: WebSocketTransport) -> None:
        await self.may_open.wait()
        await transport.run()

    async def _fetch_token(self, channel: str | None) -> None:
        provider = self._providers.get(channel)
        if provider is None:
            return  # unsubscribed in the meantime
        event: events.SessionEvent
        try:
            event = events.TokenReceived(channel, await fetch_token(provider))
        except Exception as error:  # noqa: BLE001 # a provider is foreign code
            reason = str(error) or type(error).__name__
            event = events.TokenFailed(channel, reason, isinstance(error, Unauthorized))
        self.feed(event)
