"""Detours: calls that cannot go straight to the master of their slot, in the order of their making."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from tocsin_server.engine.redis.cluster.slots import Host
from tocsin_server.engine.redis.interfaces import Answer
from tocsin_server.engine.redis.pipeline import EXPIRY_SECONDS, QUEUE_BYTES, Call

REDIRECTIONS = (MovedError, AskError, TryAgainError, ClusterDownError)
"""What a server says that did not carry a call out, since it is another's, or nobody's at present."""


class RoutedCall(Call):
    """A call that finds its way: one that was redirected is given back to whoever routes it."""

    __slots__ = ("after", "helper", "is_held", "number", "redirect", "slot")

    def __init__(
        self,
        command: bytes,
        seconds: float,
        slot: int,
        number: int,
        redirect: Callable[[RoutedCall, Exception], None],
        after: Answer | None = None,
    ) -> None:
        super().__init__(command, seconds)
        self.slot = slot
        self.number = number
        self.redirect = redirect
        self.after = after
        """To be carried out only once this was."""
        self.helper: Host | None = None
        """Who takes it next, since its slot is on its way there."""
        self.is_held = False
        """Whether it is on a detour, and not sent or, after a redirection, not sent again."""

    def __lt__(self, other: RoutedCall) -> bool:
        return self.number < other.number

    def succeed(self, answer: Any) -> None:
        """Tell the caller, if there still is one; or have it sent again."""
        if isinstance(answer, REDIRECTIONS) and not self.answer.done():
            self.redirect(self, answer)
        else:
            super().succeed(answer)

    @property
    def must_wait(self) -> bool:
        """Whether what comes first has not come yet."""
        return self.after is not None and not self.after.done()

    @property
    def is_in_vain(self) -> bool:
        """Whether what comes first has failed."""
        after = self.after
        return after is not None and after.done() and (after.cancelled() or after.exception() is not None)


class Detour:
    """The calls of one slot that are held, or sent and not answered yet. While there is one, all take it."""

    def __init__(self) -> None:
        self._held: list[RoutedCall] = []
        self._under_way: set[RoutedCall] = set()
        self._settled = asyncio.Event()
        self.must_look = False
        """Whether the topology has to be looked at before anything is sent again."""

    @property
    def is_over(self) -> bool:
        """Whether nobody is on it any more."""
        return not self._held and not self._under_way

    @property
    def obstacle(self) -> Answer | None:
        """What the first of those held waits for."""
        return self._held[0].after if self._held and self._held[0].must_wait else None

    def hold(self, call: RoutedCall) -> None:
        """Keep a call that is not to be sent yet, or was redirected."""
        self._settle(call)
        call.is_held = True
        heapq.heappush(self._held, call)

    def accompany(self, call: RoutedCall) -> None:
        """Let others wait until a call that was sent is answered or redirected."""
        self._under_way.add(call)
        call.answer.add_done_callback(lambda _: self._settle(call))

    def _settle(self, call: RoutedCall) -> None:
        self._under_way.discard(call)
        if not self._under_way:
            self._settled.set()

    async def settled(self) -> None:
        """Wait until none that was sent is open."""
        while self._under_way:
            self._settled.clear()
            await self._settled.wait()

    def take(self, *, may_go: bool, now: float) -> Iterator[RoutedCall]:
        """Those that may be sent now. Others fail if it is too late for them."""
        while self._held:
            call = self._held[0]
            if call.deadline > now and (not may_go or call.must_wait):
                return
            heapq.heappop(self._held)
            call.is_held = False
            yield call


class Detours:
    """All of them, by slot. `send` sends a call, `look` waits for a new look at the topology."""

    def __init__(self, send: Callable[[RoutedCall], None], look: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self._look = look
        self._detours: dict[int, Detour] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self.waiting_bytes = 0

    def __contains__(self, slot: int) -> bool:
        return slot in self._detours

    def open(self, tasks: asyncio.TaskGroup) -> None:
        """From now on there may be some, each followed by one of `tasks`."""
        self._tasks = tasks

    def close(self) -> None:
        """Let all that are held fail."""
        self._tasks = None
        for detour in self._detours.values():
            for call in detour.take(may_go=False, now=float("inf")):
                call.fail("the engine is not running")
        self._detours.clear()
        self.waiting_bytes = 0

    def hold(self, call: RoutedCall, *, must_look: bool = False) -> None:
        """Send a call later, behind those of its slot that were made before."""
        if self.waiting_bytes + len(call.command) > QUEUE_BYTES:
            call.fail("too much waits for Redis")
        elif detour := self._of(call.slot):
            self.waiting_bytes += len(call.command)
            detour.must_look |= must_look
            detour.hold(call)
        else:
            call.fail("the engine is not running")

    def accompany(self, calls: Iterable[RoutedCall]) -> None:
        """Let what comes after these calls, which were sent, wait until they are answered or redirected.

        Those that are redirected by now wait themselves: nothing may wait for them.
        """
        for call in calls:
            if not (call.answer.done() or call.is_held) and (detour := self._of(call.slot)):
                detour.accompany(call)

    def _of(self, slot: int) -> Detour | None:
        detour = self._detours.get(slot)
        if detour is None and self._tasks is not None:
            detour = self._detours[slot] = Detour()
            self._tasks.create_task(self._follow(slot, detour))
        return detour

    async def _follow(self, slot: int, detour: Detour) -> None:
        loop = asyncio.get_running_loop()
        while not detour.is_over:
            await detour.settled()
            may_go = await self._is_free(detour)
            for call in detour.take(may_go=may_go, now=loop.time()):
                self.waiting_bytes -= len(call.command)
                self._go(detour, call, loop.time())
        self._detours.pop(slot, None)

    async def _is_free(self, detour: Detour) -> bool:
        """Wait for whatever is in the way, but not so long that calls would fail late."""
        if (obstacle := detour.obstacle) is not None:
            await asyncio.wait([obstacle], timeout=EXPIRY_SECONDS)
        elif detour.must_look:
            with suppress(TimeoutError):
                async with asyncio.timeout(EXPIRY_SECONDS):
                    await self._look()
                    detour.must_look = False
        return not detour.must_look

    def _go(self, detour: Detour, call: RoutedCall, now: float) -> None:
        if call.deadline <= now:
            call.fail("Redis Cluster did not take it in time")
        elif call.is_in_vain:
            call.fail("what had to come first failed")
        elif not call.answer.done():
            detour.accompany(call)
            self._send(call)
