"""What carries a session out: events in, effects done; one timer, one transport at a time, every task."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from typing import Any

from . import effects, values
from .errors import TocsinError, Unauthorized
from .protocol import Request
from .session import Session
from .transport import CLOSE_SECONDS, Transport

LEAVE_SECONDS = CLOSE_SECONDS + 1.0
CANCEL_SECONDS = 1.0

TokenProvider = Callable[[], Awaitable[str]]
logger = logging.getLogger("tocsin")


class Driver:
    """The shell of a session. It runs in the loop that makes it; ``feed`` and what it calls never await.

    ``tell`` is called with each event for the owner and its share of bytes on the wire, ``ended`` once at the
    end. ``providers`` gives the token provider of a channel, or of the connection (None).
    """

    def __init__(
        self,
        session: Session,
        open_transport: Callable[[Callable[[effects.Event], None]], Transport],
        providers: dict[str | None, TokenProvider | None],
        tell: Callable[[values.Event, int], None],
        ended: Callable[[TocsinError | None], None],
    ) -> None:
        self.may_open = (
            asyncio.Event()
        )  # cleared while a reader is so far behind that it gets no new connection
        self.may_open.set()
        self._session = session
        self._open_transport = open_transport
        self._providers = providers
        self._tell = tell
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._heard: deque[effects.Event] = deque()
        self._is_feeding = False
        self._transport: Transport | None = None
        self._timer: asyncio.Handle | None = None
        self._wakes_at = 0.0  # kept here: uvloop's handle of a timer that is due at once does not know it
        self._keys = count(1)
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking: set[asyncio.Task[None]] = set()

    # --- events in, effects out

    def feed(self, event: effects.Event) -> None:
        """Let the session hear an event, after those that are being carried out."""
        self._heard.append(event)
        if self._is_feeding:
            return
        self._is_feeding = True
        try:
            while self._heard:
                self._turn(self._heard.popleft())
        finally:
            self._is_feeding = False
        self._set_timer()

    def feed_from_any_thread(self, event: Callable[[], None]) -> None:
        """Run a step in the loop's next turn; too late, once the loop is closed, it has nothing to do."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(event)

    async def call(self, method: str, request: Request) -> Any:
        """Send a command and wait for its result; cancelling gives up the answer, not the command."""
        key = next(self._keys)
        answer = self._calls[key] = self._loop.create_future()
        try:
            self.feed(effects.Call(key, method, request))
            return await answer
        finally:
            del self._calls[key]

    def _turn(self, event: effects.Event) -> None:
        asked = self._session.handle(event, self._loop.time())
        size = len(event.frame) if isinstance(event, effects.Received) else 0
        share = size // max(1, sum(isinstance(effect, effects.Tell) for effect in asked))
        for effect in asked:
            self._carry_out(effect, share)

    def _carry_out(self, effect: effects.Effect, size: int) -> None:
        match effect:
            case effects.Tell(event):
                self._tell(event, size)
            case effects.Send(text) if self._transport is not None:
                self._transport.send(text)
            case effects.Answer(key, result, error):
                self._answer(key, result, error)
            case effects.Open():
                self._transport = self._open_transport(self.feed)
                self.spawn(self._open(self._transport))
            case effects.Hangup() if self._transport is not None:
                self._transport.hang_up()
                self._transport = None
            case effects.AskToken(channel):
                self._asking.add(self.spawn(self._ask_token(channel)))
            case effects.End(error):
                self._end(error)

    def _answer(self, key: int, result: Any, error: TocsinError | None) -> None:
        answer = self._calls.get(key)
        if answer is None or answer.done():
            return  # its caller was cancelled
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    def _end(self, error: TocsinError | None) -> None:
        self.may_open.set()
        for task in self._asking:
            task.cancel()
        self._ended(error)

    def _set_timer(self) -> None:
        """Wake at the deadline; a timer too early finds nothing to do, which is cheaper than moving it."""
        deadline = self._session.deadline
        if self._timer is not None and (deadline is None or self._wakes_at > deadline):
            self._timer.cancel()
            self._timer = None
        if self._timer is None and deadline is not None:
            self._wakes_at = deadline
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.feed(effects.Tick())

    # --- tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something until it ends, at the latest until ``stop``."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)
        return task

    async def stop(self) -> None:
        """End the session and wait for every task, 7 s at most; called by one of the tasks, do not wait."""
        self.feed(effects.Stop())
        tasks = set(self._tasks)
        if not tasks or asyncio.current_task() in tasks:
            return
        try:
            await asyncio.wait(tasks, timeout=LEAVE_SECONDS)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)

    def _reap(self, task: asyncio.Task[None]) -> None:
        """A task that dies of a bug ends the session and says so: silence looks like a quiet channel."""
        self._tasks.discard(task)
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the client failed", exc_info=error)
            self.feed(effects.Refused(TocsinError(f"the client failed: {error!r}")))

    async def _open(self, transport: Transport) -> None:
        await self.may_open.wait()
        await transport.run()

    async def _ask_token(self, channel: str | None) -> None:
        provider = self._providers.get(channel)
        if provider is None:
            return  # unsubscribed meanwhile
        event: effects.Event
        try:
            event = effects.TokenFound(channel, await provider())
        except Exception as error:  # noqa: BLE001 # a provider is foreign code
            reason = str(error) or type(error).__name__
            event = effects.TokenFailed(channel, reason, isinstance(error, Unauthorized))
        self.feed(event)
